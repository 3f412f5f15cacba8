"""Reads pictures out of Parquet files, as the Hugging Face Hub serves them: a column of encoded images."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from fastvae.data.containers.container import Container, open_bounded
from fastvae.data.decoders.encoded import LARGEST_FILE, BrokenImage
from fastvae.errors import FastvaeError
from fastvae.files.places import shown

# Rows that are in memory at a time: of images, and of labels and names.
_IMAGE_ROWS = 16
_ROWS = 65536
# Without it pyarrow reads all of a row group's column, which may be all of a shard. With it a page: pyarrow, and the
# library `datasets` with it, writes pages of at most 1,024 rows.
_BUFFER_BYTES = 1 << 20
_LARGEST_PAGE = 1 << 31
_NO_BYTES = "it holds a picture's path and not its bytes"


class ParquetPictures(Container):
    """The pictures in a column of Parquet files, in the order of their rows.

    Args:
        path: the file, or the folder of the shards.
        files: the shards.
        column: of the image bytes, as a path of names.
        names: of the pictures.
        left_out: see `Container`.
    """

    def __init__(
        self, path: Path, files: list[Path], column: Sequence[str], names: list[str], left_out: dict[str, list[str]]
    ):
        super().__init__(path, files, names, left_out)
        self._column = column

    def _pictures(self) -> Iterator[bytes | BrokenImage]:
        left = len(self.names)
        for file in self.files:
            for (images,) in read_columns(file, [self._column], rows=_IMAGE_ROWS):
                for image in images:
                    if (left := left - 1) >= 0:
                        yield _encoded(image)
        if left:
            raise FastvaeError(f"{shown(self.path)} has been changed meanwhile; start again")


@contextlib.contextmanager
def open_parquet(path: Path) -> Iterator[Any]:
    """Opens a `pyarrow.parquet.ParquetFile`; errors of pyarrow inside the block become a FastvaeError.

    Raises:
        FastvaeError: pyarrow is not installed, or the file cannot be read, is damaged, truncated or no Parquet file.
    """
    try:
        import pyarrow.parquet as library
    except ImportError as error:
        raise FastvaeError(
            f"{shown(path)} is a Parquet file, and pyarrow, which reads it, is not installed; run "
            "`pip install -e '.[parquet]'`"
        ) from error
    try:
        with (
            open_bounded(path, _LARGEST_PAGE) as file,
            library.ParquetFile(file, buffer_size=_BUFFER_BYTES, pre_buffer=False) as opened,
        ):
            yield opened
    except FastvaeError:
        raise
    # pyarrow has error classes of its own, and passes on those of Python's files.
    except Exception as error:
        reason = shown(" ".join(str(getattr(error, "strerror", None) or error).split())[:200])
        raise FastvaeError(
            f"{shown(path)} is damaged, truncated, or not a Parquet file ({reason}); copy or download it again"
        ) from None


def read_columns(path: Path, columns: Sequence[Sequence[str]], *, rows: int = _ROWS) -> Iterator[list[Any]]:
    """The values of some columns, a number of rows at a time.

    Args:
        path: the file.
        columns: each as a path of names: ("image", "bytes") is a field in a column of structs.
        rows: most rows at a time.

    Yields:
        For each column a `pyarrow.Array`.

    Raises:
        FastvaeError: see `open_parquet`.
    """
    with open_parquet(path) as file:
        from pyarrow import types

        kinds = ("is_string", "is_large_string", "is_string_view", "is_dictionary")  # the third one is newer
        is_text = [getattr(types, kind) for kind in kinds if hasattr(types, kind)]
        wanted = [".".join(column) for column in columns]
        for batch in file.iter_batches(rows, columns=wanted, use_threads=False):
            arrays = []
            for name, *inner in columns:
                array = batch.column(name)
                for field in inner:
                    # `flatten` knows of rows in which the struct itself is null.
                    array = array.flatten()[array.type.get_field_index(field)]
                if any(is_kind(array.type) for is_kind in is_text):
                    array.validate(full=True)  # reading it does not ask whether it is UTF-8
                arrays.append(array)
            yield arrays


def _encoded(image: Any) -> bytes | BrokenImage:
    if not image.is_valid:
        return BrokenImage(_NO_BYTES)
    data = image.as_buffer()
    if data.size > LARGEST_FILE:
        return BrokenImage(f"the picture is larger than {LARGEST_FILE >> 20} MiB")
    return data.to_pybytes()
