"""Grids of images, the form in which runs are looked at, and the picture files that hold them."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fastvae.errors import FastvaeError, UsageError
from fastvae.files.atomic_write import atomic_file, check_writable
from fastvae.memory import free_memory

_GAP = 2  # pixels between images
# A sheet has 3 bytes a pixel, and Pillow's copy of it 4.
_BYTES_A_PIXEL = 7
_MOST_PIXELS = 2**30


@dataclass(frozen=True)
class _Format:
    """How Pillow writes it, and the most pixels a side."""

    name: str
    largest_side: int
    options: dict[str, Any] = field(default_factory=dict)


# libpng, by which most programs read PNG, takes sides up to a million; the other limits are the formats' own.
_PNG = _Format("PNG", 1_000_000)
_JPEG = _Format("JPEG", 65_500, {"quality": 95, "subsampling": 0})
_FORMATS = {".png": _PNG, ".jpg": _JPEG, ".jpeg": _JPEG, ".webp": _Format("WEBP", 16_383, {"quality": 95})}


def check_picture(path: Path, flag: str = "--out") -> None:
    """Call before starting the work.

    Raises:
        UsageError: a picture cannot be written there, or the name does not end as one of a picture that is known.
    """
    check_writable(path, flag)
    if path.suffix.lower() not in _FORMATS:
        raise UsageError(f"{flag} {path} should be a file that ends in {', '.join(_FORMATS)}")


def check_size(path: Path, height: int, width: int, advice: str) -> None:
    """Call before starting the work.

    Raises:
        UsageError: a picture of that many pixels does not go into such a file, or not into this machine's memory.
    """
    _check_sides(path, height, width, advice)
    size = f"the picture would have {width:,}x{height:,} pixels"
    if height * width > _MOST_PIXELS:
        raise UsageError(f"{size}, and {_MOST_PIXELS:,} in all are the most: {advice}")
    needed, free = height * width * _BYTES_A_PIXEL, free_memory()
    if free is not None and needed > free:
        raise UsageError(f"{size}, which take {needed / 1e9:.1f} GB of memory; {free / 1e9:.1f} GB are free: {advice}")


def _check_sides(path: Path, height: int, width: int, advice: str) -> None:
    kind = _FORMATS[path.suffix.lower()]
    if max(height, width) > kind.largest_side:
        raise UsageError(
            f"the picture would have {width:,}x{height:,} pixels, and {kind.name} takes {kind.largest_side:,} a side: "
            f"{advice}"
        )


def to_images(pixels: Tensor) -> Tensor:
    """uint8 [B, H, W, 3] in 0..255 -> float32 [B, 3, H, W] in [-1, 1], channels_last in memory."""
    return pixels.permute(0, 3, 1, 2).float() / 127.5 - 1


def to_pixels(images: Tensor) -> np.ndarray:
    """Images [B, 3, H, W] in [-1, 1] -> uint8 [B, H, W, 3]; values outside are clipped."""
    scaled = ((images.detach().float() + 1) * 127.5).round().clamp(0, 255)
    return scaled.to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()


def finite_pixels(images: Tensor) -> np.ndarray:
    """`to_pixels` of what a model made.

    Raises:
        FastvaeError: a value is NaN or infinite, which would look like a colour.
    """
    if not torch.isfinite(images).all():
        raise FastvaeError("the model's images hold NaN or infinity: did its training diverge? Take another checkpoint")
    return to_pixels(images)


def psnr_db(images: Tensor, fakes: Tensor) -> Tensor:
    """10 log10(255^2 / mean squared error of its pixels) of each image in dB, [B]; both [B, 3, H, W] in [-1, 1]."""
    error = ((fakes - images) * 127.5).square().flatten(1).mean(1)
    return 10 * torch.log10(255**2 / error.clamp_min(1e-12))


class Sheet:
    """A white sheet with a place for each image, filled little by little: more than the sheet need not be in memory.

    Args:
        count: of places, at least 1.
        columns: places in a row; no more than `count` are made.
        image_size: height and width of the images in pixels.
        gap: pixels between images, and around them.

    Attributes:
        columns: places in a row.
        pixels: uint8 [height, width, 3].

    Raises:
        FastvaeError: there is not enough memory.
    """

    def __init__(self, count: int, columns: int, image_size: tuple[int, int], gap: int = _GAP):
        self._image_size, self._gap, self.columns = image_size, gap, min(columns, count)
        try:
            self.pixels = np.full((*sheet_size(count, columns, image_size, gap), 3), 255, np.uint8)
        except MemoryError as error:
            raise FastvaeError(f"there is not enough memory for a sheet of {count:,} images: make fewer") from error

    def put(self, images: np.ndarray, places: Iterable[int]) -> None:
        """Puts images uint8 [B, H, W, 3] into places, counted row by row from 0."""
        (height, width), gap = self._image_size, self._gap
        for image, place in zip(images, places, strict=True):
            row, column = divmod(place, self.columns)
            top, left = gap + row * (height + gap), gap + column * (width + gap)
            self.pixels[top : top + height, left : left + width] = image


def sheet_size(count: int, columns: int, image_size: tuple[int, int], gap: int = _GAP) -> tuple[int, int]:
    """Height and width of a `Sheet` in pixels."""
    columns = min(columns, count)
    (height, width), rows = image_size, -(-count // columns)
    return rows * (height + gap) + gap, columns * (width + gap) + gap


class PairSheet:
    """A sheet in which each row of originals has the row of its reconstructions right below it.

    Args:
        count: of originals, at least 1.
        columns: images in a row.
        image_size: height and width of the images in pixels.

    Attributes:
        pixels: uint8 [height, width, 3].
    """

    def __init__(self, count: int, columns: int, image_size: tuple[int, int]):
        self._sheet = Sheet(pair_places(count, columns), min(columns, count), image_size)
        self.pixels = self._sheet.pixels

    def put(self, originals: np.ndarray, reconstructions: np.ndarray, first: int) -> None:
        """Puts pairs uint8 [B, H, W, 3] each, of which the first is the pair number `first`, counted from 0."""
        columns, numbers = self._sheet.columns, range(first, first + len(originals))
        places = [number // columns * 2 * columns + number % columns for number in numbers]
        self._sheet.put(originals, places)
        self._sheet.put(reconstructions, (place + columns for place in places))


def pair_places(count: int, columns: int) -> int:
    """Places in the sheet of that many pairs."""
    columns = min(columns, count)
    return 2 * columns * -(-count // columns)


def grid(pixels: np.ndarray, columns: int, gap: int = _GAP) -> np.ndarray:
    """uint8 [B, H, W, 3] -> one white-gapped sheet, uint8 [rows, width, 3], filled row by row."""
    sheet = Sheet(len(pixels), columns, pixels.shape[1:3], gap)
    sheet.put(pixels, range(len(pixels)))
    return sheet.pixels


def beside(originals: np.ndarray, reconstructions: np.ndarray, columns: int = 8) -> np.ndarray:
    """A sheet in which each row of originals has the row of its reconstructions right below it."""
    sheet = PairSheet(len(originals), columns, originals.shape[1:3])
    sheet.put(originals, reconstructions, 0)
    return sheet.pixels


def save_picture(sheet: np.ndarray, path: Path) -> None:
    """Writes a uint8 [H, W, 3] array as what the path's ending says, making the folder where needed.

    Args:
        sheet: the pixels.
        path: one that `check_picture` takes; PNG and WebP at their usual settings, JPEG at quality 95.

    Raises:
        UsageError: such a file does not hold that many pixels.
        FastvaeError: it cannot be written; no half-written file is left.
    """
    _check_sides(path, *sheet.shape[:2], "make fewer images, or choose an --out that ends in .png")
    kind = _FORMATS[path.suffix.lower()]
    advice = "free some space, check the permissions, or choose another place"
    try:
        with atomic_file(path, advice=advice) as temporary:
            Image.fromarray(sheet).save(temporary, format=kind.name, **kind.options)
    except MemoryError as error:
        raise FastvaeError(f"there is not enough memory to write {path}: make fewer images") from error


def save_png(sheet: np.ndarray, path: Path) -> None:
    """`save_picture`, for a path that ends in .png."""
    save_picture(sheet, path)
