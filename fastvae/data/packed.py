"""The packed data set: one file of raw uint8 pixels, memory-mapped, written once by `prepare`.

Layout, little-endian:

    0        magic (8 bytes), format version (uint32), length of the JSON text (uint32), JSON text, zeros
    65536    images       uint8 [N, H, W, 3]
    aligned  splits       uint8 [N], 0 train, 1 validation, 2 test, as in CelebA's list_eval_partition.txt
    aligned  attributes   uint8 [N, A], 0 or 1; absent if A = 0
    aligned  names        UTF-8, ended by zero bytes; the images' file names

The header has a fixed place so that pixels can be streamed before N is known, and is patched in at the end.
It gives each block's offset, shape and SHA-256. Blocks start on multiples of 64 KiB, the largest page size in
common use.
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

from fastvae.errors import FastvaeError, UsageError

MAGIC = b"FASTVAE\x00"
VERSION = 1
SPLITS = {"train": 0, "validation": 1, "test": 2}
_ALIGNMENT = 65536
_HEADER_BYTES = 65536
_PREAMBLE_BYTES = len(MAGIC) + 8
_REPORTED_ERRORS = {
    errno.ENOSPC: "the disk is full; free some space or choose another disk",
    errno.EDQUOT: "the disk quota is used up; free some space or choose another disk",
    errno.EFBIG: "the file would be larger than this file system or the process's limit allows; "
    "choose another disk or raise `ulimit -f`",
}


class PackedImages:
    """A packed file, mapped into memory read-only.

    Attributes:
        path: the file.
        header: everything the header says: kind, source, crop, decoder, skipped images, blocks.
        images: uint8 [N, H, W, 3], 0..255, RGB; a memory map.
        splits: uint8 [N], 0 train, 1 validation, 2 test.
        attributes: uint8 [N, A], 0 or 1; None if the source has none.
        attribute_names: A names.
    """

    def __init__(self, path: Path, header: dict[str, Any]):
        self.path = path
        self.header = header
        self.images = self._block("images")
        self.splits = self._block("splits")
        self.attributes = self._block("attributes") if "attributes" in header["blocks"] else None
        self.attribute_names = tuple(header["attribute_names"])

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Self:
        """Maps a packed file. Checks magic, version, header and size, but not the checksums: see `verify`.

        Raises:
            FastvaeError: the file is missing, of another kind or version, unfinished, truncated or damaged.
        """
        path = Path(path)
        header = _read_header(path)
        try:
            packed = cls(path, header)
            count, columns = len(packed.images), len(packed.attribute_names)
            attributes = np.empty((count, 0)) if packed.attributes is None else packed.attributes
            shapes = (packed.images.shape[3:], packed.splits.shape, attributes.shape)
        except (KeyError, TypeError, ValueError, AttributeError):
            shapes = None
        if shapes is None or shapes != ((3,), (count,), (count, columns)):
            raise FastvaeError(f"{path}: the header is damaged; write the file again with `fastvae prepare`")
        return packed

    def __len__(self) -> int:
        return len(self.images)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The images' names, relative to the source folder; empty if the file has none."""
        if "names" not in self.header["blocks"]:
            return ()
        text = self._block("names").tobytes().decode("utf-8", "surrogateescape")
        return tuple(text.split("\x00")[:-1])

    def indices(self, split: Literal["train", "validation", "test"]) -> np.ndarray:
        """int64 [n], ascending: the images of one split. Empty if the source has no such split."""
        if split not in SPLITS:
            raise UsageError(f"split must be one of {', '.join(SPLITS)}; got {split!r}")
        return np.flatnonzero(self.splits == SPLITS[split])

    def held_out(self) -> np.ndarray:
        """int64 [n]: the validation images, or the test images where there is no validation split (CIFAR-10).

        Raises:
            FastvaeError: there are neither.
        """
        return held_out_indices(self.splits, self.path)

    def verify(self) -> None:
        """Reads the whole file and compares every block with its SHA-256.

        Raises:
            FastvaeError: a block differs.
        """
        for name, block in self.header["blocks"].items():
            if hashlib.sha256(self._block(name)).hexdigest() != block["sha256"]:
                raise FastvaeError(
                    f"{self.path}: the {name} block does not match its checksum, so the file is damaged; "
                    "copy it again or write it again with `fastvae prepare`"
                )

    def _block(self, name: str) -> np.ndarray:
        block = self.header["blocks"][name]
        return np.memmap(self.path, np.uint8, mode="r", offset=block["offset"], shape=tuple(block["shape"]))


class PackedWriter:
    """Writes a packed file image by image; a context manager.

    The file gets its name only when it is whole and on the disk: until then it is OUT.tmp-<process id> beside
    it, which is removed on any failure, and an OUT that exists stays as it was.

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
            FastvaeError: the folder is missing, or the file exists and `overwrite` is false.
        """
        self.path = Path(path)
        check_destination(self.path, overwrite=overwrite)
        height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
        self.count = 0
        self.info: dict[str, Any] = {}  # further fields of the header, JSON values
        self._image_shape = (height, width, 3)
        self._attribute_names = tuple(attribute_names)
        self._splits: list[np.ndarray] = []
        self._attributes: list[np.ndarray] = []
        self._names: list[str] = []
        self._images_hash = hashlib.sha256()
        self._temporary = self.path.with_name(f"{self.path.name}.tmp-{os.getpid()}")

    def __enter__(self) -> Self:
        with self._reporting_errors():
            self._file = self._temporary.open("wb", buffering=0)
            self._file.seek(_HEADER_BYTES)
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
        try:
            if error is None:
                self._finish()
        finally:
            # After success the temporary name is gone already, and neither call does anything.
            with contextlib.suppress(OSError):
                self._file.close()
            self._temporary.unlink(missing_ok=True)

    def _finish(self) -> None:
        if not self.count:
            raise FastvaeError(f"{self.path} was not written: there were no images to write")
        blocks = {
            "images": {
                "offset": _HEADER_BYTES,
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
            text = json.dumps(header).encode()
            if len(text) > _HEADER_BYTES - _PREAMBLE_BYTES:
                raise FastvaeError(
                    f"{self.path} was not written: its header needs {len(text)} bytes and may have "
                    f"{_HEADER_BYTES - _PREAMBLE_BYTES}; use fewer or shorter attribute names"
                )
            self._file.seek(0)
            self._write(MAGIC + VERSION.to_bytes(4, "little") + len(text).to_bytes(4, "little") + text)
            os.fsync(self._file.fileno())
            self._file.close()
            self._temporary.replace(self.path)

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
                f"{self.path} was not written: after {self.count} images {reason}. Nothing was left behind"
            ) from error


def held_out_indices(splits: np.ndarray, path: Path) -> np.ndarray:
    """int64 [n], ascending: the validation images, or the test images where there is no validation split (CIFAR-10).

    Args:
        splits: uint8 [N], 0 train, 1 validation, 2 test.
        path: where they come from, for the message.

    Raises:
        FastvaeError: there are neither.
    """
    for split in ("validation", "test"):
        if len(indices := np.flatnonzero(splits == SPLITS[split])):
            return indices
    raise FastvaeError(
        f"{path}: every image is in the train split, and held-out images are needed; "
        "prepare it from a folder of 20 images or more, or one with `train` and `validation` folders"
    )


def check_destination(path: Path, *, overwrite: bool) -> None:
    """Raises FastvaeError unless a packed file can be created at `path`."""
    if path.is_dir():
        raise FastvaeError(f"{path} is a folder; give the name of a file to write, such as {path / 'set.fvae'}")
    if path.exists() and not overwrite:
        raise FastvaeError(f"{path} exists; choose another name, or allow it to be replaced (overwrite)")
    if not path.parent.is_dir():
        raise FastvaeError(f"the folder {path.parent} does not exist; create it to write {path.name} there")
    if not os.access(path.parent, os.W_OK):
        raise FastvaeError(f"the folder {path.parent} is not writable; choose another for {path.name}")


def _codes(values: np.ndarray, shape: tuple[int, ...], what: str, *, largest: int) -> np.ndarray:
    values = np.asarray(values)
    if values.shape != shape or (values.size and not 0 <= values.min() <= values.max() <= largest):
        raise ValueError(f"{what} must be {list(shape)} with values 0 to {largest}; got {list(values.shape)}")
    return values.astype(np.uint8)


def _read_header(path: Path) -> dict[str, Any]:
    advice = "write one with `fastvae prepare`"
    try:
        with path.open("rb") as file:
            start = file.read(_HEADER_BYTES)
            size = os.fstat(file.fileno()).st_size
    except FileNotFoundError:
        raise FastvaeError(f"{path} does not exist; {advice}") from None
    except IsADirectoryError:
        raise FastvaeError(f"{path} is a folder, not a packed file; {advice}") from None
    except OSError as error:
        raise FastvaeError(f"{path} cannot be read: {error.strerror}") from None
    if not start.startswith(MAGIC):
        raise FastvaeError(f"{path} is not a packed file: it begins with {start[:8]!r}; {advice}")
    version = int.from_bytes(start[8:12], "little")
    if version != VERSION:
        raise FastvaeError(f"{path} has format version {version}, and this fastvae reads {VERSION}; {advice}")
    length = int.from_bytes(start[12:16], "little")
    try:
        header = json.loads(start[_PREAMBLE_BYTES : _PREAMBLE_BYTES + length])
        expected = int(header["file_bytes"])
    except (ValueError, KeyError, TypeError):
        raise FastvaeError(f"{path}: the header is damaged or cut off; {advice}") from None
    if size != expected:
        raise FastvaeError(f"{path} is truncated or damaged: {size} bytes of {expected}; copy it again")
    return header
