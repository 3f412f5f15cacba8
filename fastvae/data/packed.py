"""The packed data set: one file of raw uint8 pixels, memory-mapped, written once by `prepare`.

Layout, little-endian:

    0        magic (8 bytes), format version (uint32), length of the JSON text (uint32), JSON text, zeros
    65536    images       uint8 [N, H, W, 3]
    aligned  splits       uint8 [N], 0 train, 1 validation, 2 test, as in CelebA's list_eval_partition.txt
    aligned  attributes   uint8 [N, A], 0 or 1; absent if A = 0
    aligned  names        the images' file names, UTF-8, each ended by a zero byte

The header has a fixed size so that pixels can be streamed before N is known; it is written last. It contains each
block's offset, shape and SHA-256. Blocks start at multiples of 64 KiB, the largest page size in common use.

Opening a file verifies the SHA-256 of all blocks except the images (10 MB for CelebA, 20 ms). Only
`PackedImages.verify`, which is `fastvae prepare --check FILE`, verifies the images (2.5 GB).
"""

import contextlib
import errno
import hashlib
import json
import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np

from fastvae.data.packed_header import HEADER_BYTES, MAGIC, PREAMBLE_BYTES, VERSION, Header, read_header
from fastvae.errors import FastvaeError, UsageError, suggest
from fastvae.files.atomic_write import atomic_file, check_writable
from fastvae.files.places import is_folder, resolved, shown
from fastvae.files.reading import open_regular
from fastvae.progress_bar import progress_bar

SPLITS = {"train": 0, "validation": 1, "test": 2}
_ALIGNMENT = 65536
_READ_BYTES = 1 << 20
# Only files with tens of millions of images have larger blocks beside the images; `verify` checks those, too.
_CHECKED_AT_OPENING_BYTES = 64 << 20
# Bytes of the header that everything but the attributes' names may take.
_OTHER_FIELDS = 8192
_COPY_AGAIN = "copy it again or write it again with `fastvae prepare`"
_REPORTED_ERRORS = {
    errno.ENOSPC: "the disk is full; free some space or choose another disk",
    errno.EDQUOT: "the disk quota is exceeded; free some space or choose another disk",
    errno.EFBIG: "the file would be larger than this file system or the process's limit allows; "
    "choose another disk or raise `ulimit -f`",
}


class PackedImages:
    """A packed file, mapped into memory read-only.

    Attributes:
        path: the file.
        header: all fields of the header: kind, source, crop, decoder, skipped images, blocks.
        images: uint8 [N, H, W, 3], 0..255, RGB; a memory map.
        splits: uint8 [N], 0 train, 1 validation, 2 test.
        attributes: uint8 [N, A], 0 or 1; None if the source has none.
        attribute_names: A names.
        unknown_blocks: names of blocks that a later version added; they are ignored.
    """

    def __init__(self, path: Path, header: Header, blocks: dict[str, np.ndarray]):
        self.path = path
        self.header = header.fields
        self.images = blocks["images"]
        self.splits = blocks["splits"]
        self.attributes = blocks.get("attributes")
        self.attribute_names = header.attribute_names
        self.unknown_blocks = header.unknown_blocks
        self._blocks = blocks
        self._layout = header.blocks

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Self:
        """Maps a packed file. Checks everything except the images' checksum, see `verify`.

        Raises:
            FastvaeError: the file is missing, has another kind or version, or is unfinished, truncated or damaged.
        """
        path = resolved(path)
        if is_folder(path):
            raise FastvaeError(f"{shown(path)} is a folder, not a packed file; write one with `fastvae prepare`")
        try:
            # Opened once for header and maps: opened again by name, it could be a different file.
            with open_regular(path) as file:
                header = read_header(file, path)
                blocks = {
                    name: np.memmap(file, np.uint8, "r", block.offset, block.shape)
                    for name, block in header.blocks.items()
                }
        except FileNotFoundError:
            raise FastvaeError(f"{shown(path)} does not exist; write one with `fastvae prepare`") from None
        except (OSError, ValueError) as error:  # ValueError: it was truncated meanwhile
            reason = getattr(error, "strerror", None) or error
            raise FastvaeError(f"{shown(path)} cannot be read ({shown(str(reason))})") from error
        packed = cls(path, header, blocks)
        for name in blocks.keys() - {"images"}:
            if blocks[name].size <= _CHECKED_AT_OPENING_BYTES:
                packed._check(name, hashlib.sha256(blocks[name]).hexdigest())
        return packed

    def __len__(self) -> int:
        return len(self.images)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The images' names, relative to the source folder; empty if the file has none."""
        if "names" not in self._blocks:
            return ()
        text = self._blocks["names"].tobytes().decode("utf-8", "surrogateescape")
        return tuple(text.split("\x00")[:-1])

    def indices(self, split: Literal["train", "validation", "test"]) -> np.ndarray:
        """int64 [n], ascending: the images of one split. Empty if the source has no such split."""
        if split not in SPLITS:
            raise UsageError(f"unknown split {split!r}{suggest(split, SPLITS)}")
        return np.flatnonzero(self.splits == SPLITS[split])

    def held_out(self) -> np.ndarray:
        """int64 [n]: the validation images, or the test images if there is no validation split (CIFAR-10).

        Raises:
            FastvaeError: there are neither validation nor test images.
        """
        return held_out_indices(self.splits, self.path)

    def verify(self, *, progress: bool = False) -> None:
        """Reads all blocks known to this version and compares each with its SHA-256.

        Args:
            progress: whether to show a progress bar on standard error.

        Raises:
            FastvaeError: a block differs, or the file cannot be read.
        """
        total = sum(block.size for block in self._layout.values())
        options = {"unit": "B", "unit_scale": True, "show": progress}
        try:
            # Read rather than mapped: a failing disk raises an error here, and would kill the process in a map.
            with open_regular(self.path) as file, progress_bar(what="check", total=total, **options) as bar:
                for name, block in self._layout.items():
                    file.seek(block.offset)
                    digest, left = hashlib.sha256(), block.size
                    while left and (data := file.read(min(left, _READ_BYTES))):
                        digest.update(data)
                        left -= len(data)
                        bar.update(len(data))
                    self._check(name, digest.hexdigest())
        except OSError as error:
            raise FastvaeError(f"{shown(self.path)} cannot be read ({error.strerror or error})") from error

    def _check(self, name: str, sha256: str) -> None:
        """Raises FastvaeError if the block's checksum is wrong or its values are out of range."""
        if sha256 != self._layout[name].sha256:
            raise FastvaeError(
                f"{shown(self.path)}: the {name} block does not match its checksum, so the file is damaged; "
                f"{_COPY_AGAIN}"
            )
        block, reason = self._blocks[name], None
        if name == "names" and (block[-1] != 0 or np.count_nonzero(block == 0) != len(self)):
            reason = f"it should have {len(self)} names"
        elif name in ("splits", "attributes") and block.max() > (largest := {"splits": 2, "attributes": 1}[name]):
            reason = f"its values should be 0 to {largest}; got {block.max()}"
        if reason is not None:
            raise FastvaeError(f"{shown(self.path)}: the {name} block is damaged ({reason}); {_COPY_AGAIN}")


class PackedWriter:
    """Writes a packed file image by image; a context manager.

    The file is written atomically (`atomic_file`): on any failure the temporary file is removed, and a file that exists
    at `path` stays as it was.

        with PackedWriter("faces.fvae", image_size=64, attribute_names=("Smiling",)) as writer:
            writer.append(images, splits=splits, attributes=attributes)
            writer.info["source"] = "my camera"
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        image_size: int | tuple[int, int],
        attribute_names: Sequence[str] = (),
        overwrite: bool = False,
    ):
        """
        Args:
            path: the file to write.
            image_size: side, or height and width, in pixels.
            attribute_names: A names; none if the images have no attributes.
            overwrite: whether to replace a file that exists.

        Raises:
            FastvaeError: the folder is missing, the file exists and `overwrite` is false, or the attributes' names
                do not fit into its header.
        """
        self.path = resolved(path)
        check_destination(self.path, overwrite=overwrite)
        height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
        self.count = 0
        self.info: dict[str, Any] = {}  # further fields of the header, JSON values
        self._image_shape = (height, width, 3)
        self._attribute_names = tuple(attribute_names)
        self._check_header({"attribute_names": self._attribute_names}, spare=_OTHER_FIELDS)  # before the work
        self._splits: list[np.ndarray] = []
        self._attributes: list[np.ndarray] = []
        self._names: list[str] = []
        self._images_hash = hashlib.sha256()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack, self._reporting_errors():
            advice = "check the disk and permissions. Nothing was written"
            temporary = stack.enter_context(atomic_file(self.path, advice=advice))
            self._file = stack.enter_context(temporary.open("wb", buffering=0))
            self._file.seek(HEADER_BYTES)
            self._stack = stack.pop_all()
        return self

    def append(
        self,
        images: np.ndarray,
        *,
        splits: np.ndarray,
        attributes: np.ndarray | None = None,
        names: Sequence[str] = (),
    ) -> None:
        """Appends a batch.

        Args:
            images: uint8 [B, H, W, 3], 0..255, RGB.
            splits: [B], 0 train, 1 validation, 2 test.
            attributes: [B, A], 0 or 1; needed if the file has attributes.
            names: B names; give them for every batch or for none.

        Raises:
            ValueError: a shape or dtype is not as described.
            FastvaeError: the batch could not be written.
        """
        batch = len(images)
        expected = (batch, *self._image_shape)
        if images.shape != expected or images.dtype != np.uint8:
            got = f"{images.dtype} {list(images.shape)}"
            raise ValueError(f"images must be uint8 {list(expected)}; got {got}")
        splits = _codes(splits, (batch,), "splits", largest=2)
        if attributes is None:
            attributes = np.empty((batch, 0), np.uint8)
        attributes = _codes(attributes, (batch, len(self._attribute_names)), "attributes", largest=1)
        if len(names) != (batch if len(self._names) == self.count and (names or self._names) else 0):
            raise ValueError(f"names must be given for all images or for none; got {len(names)} for {batch}")
        if not batch:
            return
        images = np.ascontiguousarray(images)
        self._write(images)
        self._images_hash.update(images)
        self._splits.append(splits)
        self._attributes.append(attributes)
        self._names.extend(names)
        self.count += batch

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._stack.__exit__(kind, error, trace)
            return
        with self._stack:
            self._finish()

    def _finish(self) -> None:
        if not self.count:
            raise FastvaeError(f"{shown(self.path)} was not written: there were no images to write")
        blocks = {
            "images": {
                "offset": HEADER_BYTES,
                "shape": [self.count, *self._image_shape],
                "sha256": self._images_hash.hexdigest(),
            },
            "splits": self._write_block(np.concatenate(self._splits)),
        }
        if self._attribute_names:
            blocks["attributes"] = self._write_block(np.concatenate(self._attributes))
        if self._names:
            text = "".join(f"{name}\x00" for name in self._names).encode("utf-8", "surrogateescape")
            blocks["names"] = self._write_block(np.frombuffer(text, np.uint8))
        with self._reporting_errors():
            header = {**self.info, "attribute_names": self._attribute_names, "blocks": blocks}
            header["file_bytes"] = self._file.tell()
            text = self._check_header(header)
            self._file.seek(0)
            self._write(MAGIC + VERSION.to_bytes(4, "little") + len(text).to_bytes(4, "little") + text)
            # `atomic_file` does it, too, but its error is less helpful; some network disks fail only here.
            os.fsync(self._file.fileno())

    def _check_header(self, header: dict[str, Any], *, spare: int = 0) -> bytes:
        text, most = json.dumps(header).encode(), HEADER_BYTES - PREAMBLE_BYTES - spare
        if len(text) > most:
            raise FastvaeError(
                f"{shown(self.path)} was not written: its header needs {len(text)} bytes and may have {most}; use "
                "fewer or shorter attribute names"
            )
        return text

    def _write_block(self, array: np.ndarray) -> dict[str, Any]:
        offset = -(-self._file.tell() // _ALIGNMENT) * _ALIGNMENT
        self._file.seek(offset)
        self._write(array)
        return {"offset": offset, "shape": list(array.shape), "sha256": hashlib.sha256(array).hexdigest()}

    def _write(self, data: bytes | np.ndarray) -> None:
        view = memoryview(data).cast("B")
        with self._reporting_errors():
            while view:
                view = view[self._file.write(view) :]

    @contextlib.contextmanager
    def _reporting_errors(self):
        try:
            yield
        except OSError as error:
            reason = _REPORTED_ERRORS.get(error.errno, f"{error.strerror}; check the disk and permissions")
            raise FastvaeError(
                f"{shown(self.path)} was not written: after {self.count} images {reason}. Nothing was written"
            ) from error


def held_out_indices(splits: np.ndarray, path: Path) -> np.ndarray:
    """int64 [n], ascending: the validation images, or the test images if there is no validation split (CIFAR-10).

    Args:
        splits: uint8 [N], 0 train, 1 validation, 2 test.
        path: of the data set, for the message.

    Raises:
        FastvaeError: there are neither validation nor test images.
    """
    for split in ("validation", "test"):
        if len(indices := np.flatnonzero(splits == SPLITS[split])):
            return indices
    raise FastvaeError(
        f"{shown(path)}: every image is in the train split, but held-out images are needed; "
        "prepare it from a folder of 20 images or more, or with `train` and `validation` folders"
    )


def check_destination(path: Path, *, overwrite: bool) -> None:
    """Raises FastvaeError unless a packed file can be created at `path`."""
    if is_folder(path):
        raise FastvaeError(f"{shown(path)} is a folder; give a file to write, such as {shown(path / 'set.fvae')}")
    if os.path.lexists(path) and not overwrite:
        raise FastvaeError(f"{shown(path)} exists; choose another name, or use --overwrite (in Python overwrite=True)")
    if not is_folder(path.parent):
        raise FastvaeError(
            f"the folder {shown(path.parent)} does not exist; create it to write {shown(path.name)} there"
        )
    check_writable(path, "OUT")


def _codes(values: np.ndarray, shape: tuple[int, ...], what: str, *, largest: int) -> np.ndarray:
    values = np.asarray(values)
    if values.shape != shape or (values.size and not 0 <= values.min() <= values.max() <= largest):
        raise ValueError(f"{what} must be {list(shape)} with values 0 to {largest}; got {list(values.shape)}")
    return values.astype(np.uint8)
