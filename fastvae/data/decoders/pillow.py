"""Decodes picture files to square RGB arrays with Pillow: always available, and the reference.

A file is converted to upright 8-bit RGB (`upright_rgb`), cropped (`crop.crop_box`), and resized with Pillow's
antialiased bilinear (triangle) filter, whose support ends at the crop's edge. JPEG's draft mode is not used, because it
changes pixels.

Threads, not processes: on two cores two threads decode 3.1k CelebA pictures (178x218 to 64x64) per second, two
processes 3.6k, but processes would require an `if __name__ == "__main__"` in every calling script.
"""

from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import BinaryIO

import numpy as np
import PIL
from PIL import Image, ImageOps

from fastvae.data.decoders.crop import Crop, crop_box
from fastvae.data.decoders.transparency import opacity
from fastvae.errors import FastvaeError
from fastvae.files.places import shown
from fastvae.files.reading import open_regular

# Pillow's other formats are not from cameras, and some run external programs (EPS).
FORMATS = ("JPEG", "PNG", "WEBP", "BMP")
# 256 MiB as RGB: more than all but two consumer cameras have, and it bounds a thread's memory. Pillow warns above this
# limit and raises above twice as many.
_MAX_PIXELS = (1 << 28) // 3
LARGEST_FILE = 1 << 28
# Pictures per task: enough that submitting a task costs nothing beside 0.4 ms per picture.
_TASK = 32
_TASKS_AHEAD_PER_WORKER = 4


@dataclass(frozen=True)
class BrokenImage:
    """The reason why a file could not be decoded."""

    reason: str


def describe() -> str:
    """Name and version, for the header of a packed file."""
    return f"pillow {PIL.__version__}"


def decode(
    paths: Sequence[Path], *, crop: Crop, size: int, workers: int
) -> Generator[np.ndarray | BrokenImage, None, None]:
    """Decodes files, in order, in threads that work a few batches ahead of the reader.

    Args:
        paths: the files.
        crop: see `crop.check_crop`.
        size: side of the result, in pixels.
        workers: number of threads, 1 or more.

    Yields:
        For each path uint8 [size, size, 3], 0..255, RGB, or a BrokenImage.
    """

    stopping = Event()

    def decode_task(start: int) -> list[np.ndarray | BrokenImage]:
        ahead = paths[start : start + _TASK]
        # A task of large pictures takes long; stopping should not wait for it.
        return [decode_file(path, crop=crop, size=size) for path in ahead if not stopping.is_set()]

    starts = range(0, len(paths), _TASK)
    ahead = workers * _TASKS_AHEAD_PER_WORKER
    pool = ThreadPoolExecutor(workers)
    try:
        # Submitting everything at once would keep every decoded image in memory.
        tasks = [pool.submit(decode_task, start) for start in starts[:ahead]]
        for start in (*starts[ahead:], *[None] * len(tasks)):
            yield from tasks.pop(0).result()
            if start is not None:
                tasks.append(pool.submit(decode_task, start))
    finally:
        stopping.set()
        pool.shutdown(cancel_futures=True)


def decode_file(file: Path | BinaryIO, *, crop: Crop, size: int) -> np.ndarray | BrokenImage:
    """One file as uint8 [size, size, 3], 0..255, RGB, or a BrokenImage; never raises.

    A file is also broken if it is not a regular file (reading a pipe would block), or has more than 256 MiB, as a file
    or decoded to RGB.
    """
    try:
        if not isinstance(file, Path):
            return _decode(file, crop, size)
        with open_regular(file) as opened:
            return _decode(opened, crop, size)
    except PIL.UnidentifiedImageError:
        return BrokenImage("not a JPEG, PNG, WebP or BMP picture")
    except FastvaeError as error:
        return BrokenImage(str(error))
    # Codecs may raise anything for damaged files: OSError, SyntaxError, struct.error and more.
    except Exception as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        return BrokenImage(shown(reason) or type(error).__name__)


def _decode(file: BinaryIO, crop: Crop, size: int) -> np.ndarray:
    if file.seek(0, 2) > LARGEST_FILE:
        raise FastvaeError(f"the file is larger than {LARGEST_FILE >> 20} MiB")
    file.seek(0)
    with Image.open(file, formats=FORMATS) as picture:
        if picture.width * picture.height > _MAX_PIXELS:
            raise FastvaeError(f"{picture.width}x{picture.height} pixels; the limit is {_MAX_PIXELS:,}")
        return crop_and_resize(upright_rgb(picture), crop=crop, size=size)


def upright_rgb(picture: Image.Image) -> Image.Image:
    """The picture as 8-bit RGB, rotated according to its EXIF orientation.

    Grey becomes three equal channels; 16-bit grey is divided by 257; 16-bit colours keep their high byte, as in Pillow;
    palettes are looked up; CMYK is converted as in Pillow (no colour profile); transparent pixels are blended over
    white. Animations: the first frame.

    Args:
        picture: opened, its pixels not yet loaded.
    """
    opaque = opacity(picture)
    alpha = None
    if opaque is not None:
        alpha = Image.fromarray(opaque)
        alpha.info = picture.info  # contains the orientation
        alpha = ImageOps.exif_transpose(alpha)
    picture.load()
    picture = ImageOps.exif_transpose(picture)
    if picture.mode == "RGB" and alpha is None:
        return picture
    if picture.mode.startswith("I"):
        grey = np.asarray(picture).astype(np.int32).clip(0, 65535)
        picture = Image.fromarray(((grey + 128) // 257).astype(np.uint8))
    elif alpha is None and picture.has_transparency_data:
        picture = picture.convert("RGBA")
        alpha = picture.getchannel("A")
    picture = picture.convert("RGB")
    if alpha is not None:
        white = Image.new("RGB", picture.size, "white")
        white.paste(picture, mask=alpha)
        return white
    return picture


def crop_and_resize(picture: Image.Image, *, crop: Crop, size: int) -> np.ndarray:
    """Upright RGB picture -> uint8 [size, size, 3], 0..255.

    Raises:
        FastvaeError: the crop does not fit the picture or is too small.
    """
    # Cropped first: with resize(box=...) the filter would reach beyond the box.
    picture = picture.crop(crop_box(*picture.size, crop))
    if picture.size != (size, size):
        picture = picture.resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(picture)
