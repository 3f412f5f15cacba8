"""What tells one training set from another: for checkpoints, which hold it, and for the names of cached files."""

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

# Others than these may change without changing a pixel.
_DECODING_CODE = ("crop.py", "dali.py", "pillow.py", "plain_jpeg.py", "transparency.py")


@dataclass(frozen=True)
class Identity:
    """Says whether two training sets are the same; JSON values throughout.

    Two of different kinds, or digests, are to be taken for different ones. A folder has another identity prepared than
    decoded in training: what is known of it before its pixels are is not what is known afterwards.

    Attributes:
        digest: 64 hexadecimal digits.
        kind: "packed": digest of the SHA-256 of the images and of the splits, and of the images' shape, wherever and
            under whatever name the file lies. "pictures": of the names, splits and sizes of the files and the crop, not
            of the files' times, which copying changes. "faces": of version, number and size of the embedded ones.
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
    """The identity of picture files that are decoded in training."""
    sizes = [_size(path) for path in source.images]
    digest = _digest("pictures", *source.names, source.splits.tobytes(), sizes, crop)
    return Identity(digest, "pictures", int(np.count_nonzero(source.splits == 0)))


def cache_key(source: Source, *, image_size: int, crop: Crop) -> str:
    """64 hexadecimal digits: a digest of everything that a packed file of `source` is made from.

    That is: its folder, kind, names, splits and attributes as they were read, which says all of the lists they came
    from; of each file where it really lies, its size, and the times of its last change and of the last change of its
    status, which a file put in its place with the old time does not share; the image size and crop; and the code and
    the version of Pillow that turn files into pixels (DALI's are the same).
    """
    parts = [os.path.realpath(source.root), source.kind, image_size, crop, decode_pillow.describe(), _code()]
    parts += [*source.names, source.splits.tobytes()]
    parts += [source.attribute_names, source.attributes.shape, source.attributes.tobytes(), source.split_rule]
    if isinstance(source.images, np.ndarray):
        parts += [source.images.shape, np.ascontiguousarray(source.images)]
    else:
        parts += _states(source.images)
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


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1


def _code() -> str:
    folder = Path(__file__).parent / "decoders"
    return _digest(*((folder / name).read_bytes() for name in _DECODING_CODE))


def _digest(*parts: object) -> str:
    """SHA-256 of values, each of which is set off from the next."""
    total = hashlib.sha256()
    for part in parts:
        is_raw = isinstance(part, bytes | np.ndarray)
        data = part if is_raw else repr(part).encode()  # which escapes what is not UTF-8
        total.update(b"%d:" % memoryview(data).nbytes)
        total.update(data)
    return total.hexdigest()
