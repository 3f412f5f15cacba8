"""Picture files to square RGB arrays, with Pillow: the decoder that is always there, and the reference.

A file becomes upright 8-bit RGB (`upright_rgb`), is cropped (`crop.crop_box`), and is resized with Pillow's
antialiased bilinear (triangle) filter, whose support ends at the crop's edge. JPEG's draft mode is not used,
because it changes pixels.

Threads, not processes: on two cores two threads decode 3.1k CelebA pictures (178x218 to 64x64) a second,
two processes 3.6k, and processes would ask every calling script for an `if __name__ == "__main__"`.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import PIL
from PIL import Image, ImageOps

from fastvae.data.crop import Crop, crop_box
from fastvae.errors import FastvaeError

# Others that Pillow knows are not pictures from a camera, and some run external programs (EPS).
FORMATS = ("JPEG", "PNG", "WEBP", "BMP")
# Pictures a task: enough that handing tasks out costs nothing beside 0.4 ms a picture.
_TASK = 32
_TASKS_AHEAD_PER_WORKER = 4


@dataclass(frozen=True)
class BrokenImage:
    """A file that gave no image, and why."""

    reason: str


def describe() -> str:
    """Name and version, for the header of a packed file."""
    return f"pillow {PIL.__version__}"


def decode(paths: Sequence[Path], *, crop: Crop, size: int, workers: int) -> Iterator[np.ndarray | BrokenImage]:
    """Decodes files, in order, in threads that work a few batches ahead of the reader.

    Args:
        paths: the files.
        crop: see `crop.check_crop`.
        size: side of the result, in pixels.
        workers: number of threads, 1 or more.

    Yields:
        For each path uint8 [size, size, 3], 0..255, RGB, or a BrokenImage.
    """

    def decode_task(start: int) -> list[np.ndarray | BrokenImage]:
        return [decode_file(path, crop=crop, size=size) for path in paths[start : start + _TASK]]

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
        pool.shutdown(cancel_futures=True)


def decode_file(file: Path | BinaryIO, *, crop: Crop, size: int) -> np.ndarray | BrokenImage:
    """One file as uint8 [size, size, 3], 0..255, RGB, or a BrokenImage; never an exception."""
    try:
        with Image.open(file, formats=FORMATS) as picture:
            return crop_and_resize(upright_rgb(picture), crop=crop, size=size)
    except PIL.UnidentifiedImageError:
        return BrokenImage("not a JPEG, PNG, WebP or BMP picture")
    except FastvaeError as error:
        return BrokenImage(str(error))
    # What codecs raise on damaged files is open-ended: OSError, SyntaxError, struct.error and more.
    except Exception as error:
        return BrokenImage(" ".join(str(error).split()) or type(error).__name__)


def upright_rgb(picture: Image.Image) -> Image.Image:
    """The picture as 8-bit RGB, turned as its EXIF orientation says.

    Grey becomes three equal channels, 16-bit grey is divided by 257, palettes are looked up, CMYK is converted
    as Pillow does (no colour profile), transparent pixels are laid over white. Of an animation, the first frame.
    """
    picture.load()
    picture = ImageOps.exif_transpose(picture)
    if picture.mode == "RGB" and "transparency" not in picture.info:
        return picture
    if picture.mode.startswith("I"):
        grey = np.rint(np.asarray(picture, np.float64) / 257).clip(0, 255).astype(np.uint8)
        return Image.fromarray(grey).convert("RGB")
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(white, picture)
    return picture.convert("RGB")


def crop_and_resize(picture: Image.Image, *, crop: Crop, size: int) -> np.ndarray:
    """Upright RGB picture -> uint8 [size, size, 3], 0..255.

    Raises:
        FastvaeError: the crop does not fit the picture or leaves too little of it.
    """
    # Cropped first: resize(box=...) would let the filter reach beyond the box.
    picture = picture.crop(crop_box(*picture.size, crop))
    if picture.size != (size, size):
        picture = picture.resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(picture)
