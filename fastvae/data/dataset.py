"""Opens the data set of `--data`: the embedded faces, a packed file, or anything that is prepared on first use."""

import contextlib
import hashlib
import logging
import os
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np

from fastvae.data import identity
from fastvae.data.identity import Identity
from fastvae.data.packed import PackedImages, PackedWriter
from fastvae.data.sources.detect import container_of, read_source
from fastvae.data.sources.hub import is_on_hub, place_of
from fastvae.data.sources.source import Source
from fastvae.errors import FastvaeError, UsageError
from fastvae.files.cache import cache_folder, kept_file
from fastvae.files.places import is_folder, shown

EMBEDDED = "faces"
EMBEDDED_COUNT = 6000
_HELD_OUT_EVERY = 20
_CHUNK = 500
_CROP = "auto"
_logger = logging.getLogger("fastvae")


class WrongSize(UsageError):
    """A packed file has images of another size than those wanted."""


def open_images(data: str, image_size: int, *, source: Source | None = None) -> PackedImages:
    """The images to train on, uint8 [N, image_size, image_size, 3], memory-mapped.

    Args:
        data: "faces", the embedded data set, drawn on first use; a packed file from `fastvae prepare`; or anything that
            `fastvae prepare` reads (a folder of images, a zip, tar or Parquet file, "hub:user/name"), which is prepared
            once into the cache folder.
        image_size: pixels a side.
        source: contents of the folder or container, if it has been read already.

    Raises:
        WrongSize: the packed file has a different image size.
        FastvaeError: the file or folder is missing, empty or damaged, or the cache cannot be written.
    """
    if data == EMBEDDED:
        return _embedded(image_size)
    path = place_of(data)
    images = PackedImages.open(path) if is_packed(path) else _prepared(path, image_size, source)
    size = images.images.shape[1:3]
    if size != (image_size, image_size):
        raise WrongSize(
            f"expected images of {image_size}x{image_size} pixels; {shown(path)} has {size[0]}x{size[1]}: "
            f"prepare them again with --image-size {image_size}, or train with --image-size {size[0]}"
        )
    return images


def identity_of(data: str, images: PackedImages) -> Identity:
    """The identity of the images that `open_images` opened for `data`."""
    if data != EMBEDDED:
        return identity.of_packed(images)
    from fastvae.data.faces import faces

    count, size = images.images.shape[:2]
    return identity.of_faces(faces.VERSION, count, size, len(images.indices("train")))


def is_packed(place: Path) -> bool:
    """Whether a place is to be read as a packed file: it is neither a folder, nor a container, nor on the Hub."""
    return not (is_on_hub(place) or is_folder(place) or container_of(place) is not None)


def _embedded(image_size: int) -> PackedImages:
    from fastvae.data.faces import faces

    if os.path.lexists(EMBEDDED):
        _logger.info("faces are those that fastvae draws; what the working directory holds is ./faces")
    # The name contains a hash of the drawing code, so that a file drawn by older code is not used.
    version = hashlib.sha256(b"".join(p.read_bytes() for p in _drawing_files())).hexdigest()[:8]

    def draw(path: Path) -> None:
        _logger.info("drawing the embedded data set, %d faces, to %s", EMBEDDED_COUNT, shown(path))
        with PackedWriter(path, image_size=image_size, attribute_names=faces.ATTRIBUTES, overwrite=True) as writer:
            for start in range(0, EMBEDDED_COUNT, _CHUNK):
                images, attributes = faces.draw_faces(_CHUNK, start=start, size=image_size)
                held_out = np.arange(start, start + _CHUNK) % _HELD_OUT_EVERY == 0
                writer.append(images, splits=held_out.astype(np.uint8), attributes=attributes)
            writer.info = {"kind": "faces", "source": "drawn by fastvae", "split_rule": "every 20th is validation"}

    return _kept(f"faces-{EMBEDDED_COUNT}-{image_size}-{version}.fvae", image_size, draw)


def _drawing_files() -> list[Path]:
    return sorted((Path(__file__).parent / "faces").glob("*.py"))


def _prepared(place: Path, image_size: int, source: Source | None) -> PackedImages:
    from fastvae.data.prepare import prepare_source

    source = source or read_source(place)
    # The name is for readability; the hash of the path distinguishes two folders or files with the same name.
    name = re.sub(r"[^A-Za-z0-9._-]", "_", place.name)[:40]
    path = str(place) if is_on_hub(place) else os.path.realpath(place)
    digest = hashlib.sha256(os.fsencode(path)).hexdigest()[:8]
    key = identity.cache_key(source, image_size=image_size, crop=_CROP)[:16]

    def prepare(path: Path) -> None:
        _logger.info("preparing %s once, to %s", shown(place), shown(path))
        prepare_source(source, path, image_size=image_size, crop=_CROP, overwrite=True)
        _remove_superseded(path)

    return _kept(f"{name}-{image_size}-{digest}-{key}.fvae", image_size, prepare)


def _kept(name: str, image_size: int, make: Callable[[Path], None]) -> PackedImages:
    """A packed file in the cache, which may be read-only; made if it is missing or damaged."""
    kept = kept_file(name) or cache_folder() / name
    try:
        images = PackedImages.open(kept)
        if images.images.shape[1:3] == (image_size, image_size):
            return images
        reason = "it has images of another size"
    except FastvaeError as error:
        reason = str(error)
    if os.path.lexists(kept):
        _logger.warning("making %s again: %s", shown(kept), reason)
    path = cache_folder() / name
    make(path)
    return PackedImages.open(path)


def _remove_superseded(path: Path) -> None:
    """Removes files prepared from earlier states of the same folder or file. Processes that have one mapped keep it."""
    stem = path.stem.rpartition("-")[0]
    ours = re.compile(re.escape(stem) + r"-[0-9a-f]{16}\.fvae")
    for other in path.parent.iterdir():
        if other != path and ours.fullmatch(other.name) and not other.is_symlink() and other.is_file():
            with contextlib.suppress(OSError):
                other.unlink()
                _logger.info("removed %s, an earlier state of the same data", shown(other))
