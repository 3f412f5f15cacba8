"""Opens what `--data` names: the embedded faces, a packed file, or a folder that is prepared on first use."""

import hashlib
import logging
import os
from pathlib import Path

import numpy as np

from fastvae.cache import cache_folder
from fastvae.data.packed import PackedImages, PackedWriter
from fastvae.errors import FastvaeError, UsageError

EMBEDDED = "faces"
EMBEDDED_COUNT = 6000
_HELD_OUT_EVERY = 20
_CHUNK = 500
_logger = logging.getLogger("fastvae")


def open_images(data: str, image_size: int) -> PackedImages:
    """The images to train on, uint8 [N, image_size, image_size, 3], memory-mapped.

    Args:
        data: "faces", the embedded data set, drawn on first use; a file of `fastvae prepare`; or a folder of
            images, which is prepared once into the cache folder.
        image_size: pixels a side.

    Raises:
        UsageError: the packed file has another image size.
        FastvaeError: the file or folder is missing, empty or damaged, or the cache cannot be written.
    """
    if data == EMBEDDED:
        return _embedded(image_size)
    path = Path(data).expanduser()
    images = _prepared(path, image_size) if path.is_dir() else PackedImages.open(path)
    size = images.images.shape[1:3]
    if size != (image_size, image_size):
        raise UsageError(
            f"{path} holds images of {size[0]}x{size[1]} pixels and the model takes {image_size}x{image_size}: "
            f"give --image-size {size[0]}, or prepare the images again in that size"
        )
    return images


def _embedded(image_size: int) -> PackedImages:
    from fastvae.data import faces

    # The drawing code is part of the name, so that a change to it never meets an old file.
    version = hashlib.sha256(b"".join(p.read_bytes() for p in _drawing_files())).hexdigest()[:8]
    path = cache_folder() / f"faces-{EMBEDDED_COUNT}-{image_size}-{version}.fvae"
    if not path.exists():
        _logger.info("drawing the embedded data set, %d faces, into %s", EMBEDDED_COUNT, path)
        _make_folder(path.parent)
        with PackedWriter(path, image_size=image_size, attribute_names=faces.ATTRIBUTES, overwrite=True) as writer:
            for start in range(0, EMBEDDED_COUNT, _CHUNK):
                images, attributes = faces.draw_faces(_CHUNK, start=start, size=image_size)
                held_out = np.arange(start, start + _CHUNK) % _HELD_OUT_EVERY == 0
                writer.append(images, splits=held_out.astype(np.uint8), attributes=attributes)
            writer.info = {"kind": "faces", "source": "drawn by fastvae", "split_rule": "every 20th is validation"}
    return PackedImages.open(path)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FastvaeError(
            f"the cache folder {folder} cannot be made ({error.strerror}): name another one in FASTVAE_CACHE"
        ) from error


def _drawing_files() -> list[Path]:
    return sorted(Path(__file__).parent.glob("face*.py"))


def _prepared(folder: Path, image_size: int) -> PackedImages:
    from fastvae.data.prepare import prepare

    # Names, sizes and times of the files: a changed folder is prepared anew, an unchanged one is not read again.
    listing = hashlib.sha256(f"{folder.resolve()}|{image_size}".encode())
    files = 0
    for parent, _, names in sorted(os.walk(folder)):
        for name in sorted(names):
            status = (Path(parent) / name).lstat()
            listing.update(f"{parent}/{name}|{status.st_size}|{status.st_mtime_ns}\n".encode())
            files += 1
    if not files:
        raise FastvaeError(f"{folder} is empty; give a folder that holds images, or `faces` for the embedded ones")
    path = cache_folder() / f"{folder.resolve().name}-{image_size}-{listing.hexdigest()[:12]}.fvae"
    if not path.exists():
        _logger.info("preparing %s once, into %s", folder, path)
        _make_folder(path.parent)
        prepare(folder, path, image_size=image_size, overwrite=True)
    return PackedImages.open(path)
