"""Digests that identify a training set, for checkpoints and for the names of cached files."""

import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fastvae.data.decoders import pillow as decode_pillow
from fastvae.data.decoders.crop import Crop
from fastvae.data.packed import PackedImages
from fastvae.data.sources.source import Source

# Changes to the other files cannot change a pixel.
_DECODING_CODE = ("crop.py", "dali.py", "pillow.py", "plain_jpeg.py", "transparency.py")


@dataclass(frozen=True)
class Identity:
    """Identifies a training set; equal for equal training sets. All values are JSON values.

    Training sets with different kinds or digests count as different. A folder that is prepared first and the same
    folder decoded during training have different identities, since only the first one has a checksum of its pixels.

    Attributes:
        digest: 64 hexadecimal digits.
        kind: what the digest is of. "packed": SHA-256 of the images and of the splits, and the images' shape; not the
            file's path. "pictures": names, splits and sizes of the files, and the crop; not the files' times, which
            copying changes. "faces": version, number and size of the embedded faces.
        train: number of training images, for messages.
    """

    digest: str
    kind: str
    train: int


def of_packed(images: PackedImages) -> Identity:
    """The identity of a packed file; reads no pixels."""
    blocks = images.header["blocks"]
    values = (blocks["images"]["sha256"], blocks["splits"]["sha256"], images.images.shape)
    return Identity(_digest("packed", *values), "packed", len(images.indices("train")))


def of_faces(version: int, count: int, image_size: int, train: int) -> Identity:
    """The identity of the embedded data set."""
    return Identity(_digest("faces", version, count, image_size), "faces", train)


def of_pictures(source: Source, crop: Crop) -> Identity:
    """The identity of picture files that are decoded during training."""
    sizes = [_size_and_time(path)[0] for path in source.images]
    digest = _digest("pictures", *source.names, source.splits.tobytes(), sizes, crop)
    return Identity(digest, "pictures", int(np.count_nonzero(source.splits == 0)))


def digest_of_source(source: Source, crop: Crop) -> str:
    """A digest of what results of the images depend on, 64 hexadecimal digits: names, splits, contents and crop.

    In place of a file's contents, or a container's, its size and time of modification, which editing changes; moving
    the folder, or a copy that keeps times, does not.
    """
    if isinstance(source.images, np.ndarray):
        contents = [source.images.shape, np.ascontiguousarray(source.images)]
    else:
        contents = [_size_and_time(path) for path in source.files]
    return _digest("source", *source.names, source.splits.tobytes(), *contents, crop)


def cache_key(source: Source, *, image_size: int, crop: Crop) -> str:
    """A digest of everything that determines the packed file of `source`, 64 hexadecimal digits.

    It covers the source's folder, kind, names, splits and attributes; the real path, size, mtime and ctime of each file
    that holds pictures (a replaced file with the old mtime has a new ctime); the image size and crop; and the decoding
    code and the version of Pillow (DALI's pixels are the same).
    """
    parts = [os.path.realpath(source.root), source.kind, image_size, crop, decode_pillow.describe(), _code()]
    parts += [*source.names, source.splits.tobytes()]
    parts += [source.attribute_names, source.attributes.shape, source.attributes.tobytes(), source.split_rule]
    if isinstance(source.images, np.ndarray):
        parts += [source.images.shape, np.ascontiguousarray(source.images)]
    parts += _states(source.files)
    return _digest(*parts)


def _states(paths: list[Path]) -> list[object]:
    folders: dict[Path, str] = {}
    states: list[object] = []
    for path in paths:
        folder = folders.get(path.parent)
        if folder is None:
            folder = folders[path.parent] = os.path.realpath(path.parent)
        try:
            status = path.lstat()
            if stat.S_ISLNK(status.st_mode):
                folder, status = os.path.realpath(path), path.stat()
        except OSError as error:
            states.append((folder, error.errno))
        else:
            states.append((folder, status.st_size, status.st_mtime_ns, status.st_ctime_ns))
    return states


def _size_and_time(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError:
        return -1, -1
    return status.st_size, status.st_mtime_ns


def _code() -> str:
    folder = Path(__file__).parent / "decoders"
    return _digest(*((folder / name).read_bytes() for name in _DECODING_CODE))


def _digest(*parts: object) -> str:
    """SHA-256 of values, each with its length."""
    total = hashlib.sha256()
    for part in parts:
        is_raw = isinstance(part, bytes | np.ndarray)
        data = part if is_raw else repr(part).encode()  # repr escapes what is not UTF-8
        total.update(b"%d:" % memoryview(data).nbytes)
        total.update(data)
    return total.hexdigest()
