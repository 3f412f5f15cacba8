"""Decodes picture files to square RGB arrays with Pillow: always available, and the reference.

A file is converted to upright 8-bit RGB (`upright_rgb`), cropped (`crop.crop_box`), and resized with Pillow's
antialiased bilinear (triangle) filter, whose support ends at the crop's edge. JPEG's draft mode is not used, because it
changes pixels.

Threads, not processes: on two cores two threads decode 3.1k CelebA pictures (178x218 to 64x64) per second, two
processes 3.6k, but processes would require an `if __name__ == "__main__"` in every calling script.
"""

from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from threading import Event
from typing import BinaryIO

import numpy as np
import PIL
from PIL import Image, ImageOps

from fastvae.data.decoders.crop import Crop, crop_box
from fastvae.data.decoders.encoded import LARGEST_FILE, BrokenImage, Encoded, bytes_in, in_tasks
from fastvae.data.decoders.transparency import opacity
from fastvae.errors import FastvaeError
from fastvae.files.places import shown
from fastvae.files.reading import open_regular

# Pillow's other formats are not from cameras, and some run external programs (EPS).
FORMATS = ("JPEG", "PNG", "WEBP", "BMP")
# 256 MiB as RGB: more than all but two consumer cameras have, and it bounds a thread's memory. Pillow warns above this
# limit and raises above twice as many.
_MAX_PIXELS = (1 << 28) // 3
# Pictures per task: enough that submitting a task costs nothing beside 0.4 ms per picture.
_TASK = 32
_TASKS_AHEAD_PER_WORKER = 4
# Of a container's pictures that wait for a thread.
_HELD_BYTES = 1 << 27


def describe() -> str:
    """Name and version, for the header of a packed file."""
    return f"pillow {PIL.__version__}"


def decode(
    pictures: Iterable[Encoded], *, crop: Crop, size: int, workers: int
) -> Generator[np.ndarray | BrokenImage, None, None]:
    """Decodes pictures, in order, in threads that work a few batches ahead of the reader.

    Args:
        pictures: files, which the threads read, or the bytes of files; iterated in the caller's thread.
        crop: see `crop.check_crop`.
        size: side of the result, in pixels.
        workers: number of threads, 1 or more.

    Yields:
        For each picture uint8 [size, size, 3], 0..255, RGB, or a BrokenImage.
    """

    stopping = Event()

    def decode_task(task: list[Encoded]) -> list[np.ndarray | BrokenImage]:
        # A task of large pictures takes long; stopping should not wait for it.
        return [decode_file(picture, crop=crop, size=size) for picture in task if not stopping.is_set()]

    pool = ThreadPoolExecutor(workers)
    started: deque[tuple[Future, int]] = deque()
    held = 0
    try:
        # Submitting everything at once would keep every decoded image, and all bytes of a container, in memory.
        for task in in_tasks(pictures, _TASK):
            held += (in_memory := bytes_in(task))
            started.append((pool.submit(decode_task, task), in_memory))
            while len(started) > workers * _TASKS_AHEAD_PER_WORKER or held > _HELD_BYTES:
                decoding, in_memory = started.popleft()
                yield from decoding.result()
                held -= in_memory
        while started:
            yield from started.popleft()[0].result()
    finally:
        stopping.set()
        pool.shutdown(cancel_futures=True)


def decode_file(file: Encoded | BinaryIO, *, crop: Crop, size: int) -> np.ndarray | BrokenImage:
    """One file, or its bytes, as uint8 [size, size, 3], 0..255, RGB, or a BrokenImage; never raises.

    A file is also broken if it is not a regular file (reading a pipe would block), or has more than 256 MiB, as a file
    or decoded to RGB.
    """
    if isinstance(file, BrokenImage):
        return file
    try:
        if isinstance(file, bytes):
            return _decode(BytesIO(file), crop, size)
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
        alpha = _upright(alpha)
    picture.load()
    picture = _upright(picture)
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


def _upright(picture: Image.Image) -> Image.Image:
    """Rotated by its EXIF orientation; as it is, if its EXIF data cannot be read."""
    try:
        picture.getexif()
    except Exception:  # of damaged data Pillow raises anything
        return picture
    return ImageOps.exif_transpose(picture)


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
