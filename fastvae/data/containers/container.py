"""What all containers have in common: the names of the pictures inside, and their bytes in that order.

`archives.open_archive(path)` lists a zip or tar file, `parquet.ParquetPictures` the shards of a data set. A `Source`
takes a container in place of a list of files, and names, splits and attributes belong to `names`:

    pictures = open_archive(Path("img_align_celeba.zip"))
    pictures.names  # ["img_align_celeba/000001.jpg", ...], sorted
    Source(kind="celeba", root=pictures.path, images=pictures, names=pictures.names, ...)
"""

import io
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path

from fastvae.data.decoders.encoded import BrokenImage
from fastvae.errors import FastvaeError
from fastvae.files.places import shown
from fastvae.files.reading import open_regular

REPEATED = "repeated names (the last one is read)"
# Twice the largest picture, and the list of five million members of a zip file.
_LARGEST_READ = 1 << 29


class Container(ABC):
    """Pictures inside one or more files, read in order and without unpacking.

    Attributes:
        path: the file, or the folder of the shards, for messages.
        files: the files that hold the pictures.
        names: N names, with slashes.
        left_out: members that are skipped, by reason, as in `listing.Listing`.
    """

    def __init__(self, path: Path, files: list[Path], names: list[str], left_out: dict[str, list[str]]):
        self.path, self.files, self.names, self.left_out = path, files, names, left_out
        self._states = list(map(_state, files))

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[bytes | BrokenImage]:
        """The encoded pictures, in the order of `names`; a BrokenImage for each that cannot be read.

        One picture is in memory at a time (of Parquet a page, up to 1,024 of them). The files are open only while it is
        iterated.

        Raises:
            FastvaeError: a file cannot be read at all, or has been changed since it was listed, so that names and
                labels would be those of other pictures.
        """
        self._check()
        yield from self._pictures()
        self._check()

    @abstractmethod
    def _pictures(self) -> Iterator[bytes | BrokenImage]:
        """`__iter__` of files that do not change."""

    def _check(self) -> None:
        for file, state in zip(self.files, self._states, strict=True):
            if _state(file) != state:
                raise FastvaeError(f"{shown(file)} has been changed meanwhile; start again")


def _state(file: Path) -> tuple[int, int, int] | None:
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns


def clean_name(name: str) -> str:
    """A member's name as a relative path.

    Nothing is unpacked, so that a name that leads elsewhere does no harm; but folders are classes and splits, which
    "/", ".." and null characters cannot be.
    """
    return "/".join(part for part in name.replace("\x00", "\\x00").split("/") if part not in ("", ".", ".."))


def open_bounded(path: Path, limit: int = _LARGEST_READ) -> io.BufferedReader:
    """Opens a regular file that refuses to read more than `limit` bytes at once, with a ValueError.

    The libraries that read containers read headers and lists at once, whatever size the file claims for them.

    Raises:
        OSError: see `open_regular`.
    """
    reader = _BoundedReader(open_regular(path).detach())
    reader.limit = limit
    return reader


class _BoundedReader(io.BufferedReader):
    def read(self, size: int | None = -1) -> bytes:
        if size is not None and size > self.limit:
            raise ValueError(f"a part of it claims {size:,} bytes")
        return super().read(size)
