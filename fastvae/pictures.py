"""Conversions between images and pixels, grids of images, and writing them as picture files."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from fastvae.errors import FastvaeError, UsageError
from fastvae.files.atomic_write import atomic_file, check_writable
from fastvae.memory import free_memory

_GAP = 2  # pixels between images
# A sheet takes 3 bytes a pixel, and Pillow's copy of it 4.
_BYTES_PER_PIXEL = 7
_MAX_PIXELS = 2**30


@dataclass(frozen=True)
class _Format:
    """Pillow's name and options for a format, and its largest side in pixels."""

    name: str
    largest_side: int
    options: dict[str, Any] = field(default_factory=dict)


# libpng, with which most programs read PNG, accepts sides up to a million; the other limits are the formats' own.
_PNG = _Format("PNG", 1_000_000)
_JPEG = _Format("JPEG", 65_500, {"quality": 95, "subsampling": 0})
_FORMATS = {".png": _PNG, ".jpg": _JPEG, ".jpeg": _JPEG, ".webp": _Format("WEBP", 16_383, {"quality": 95})}


def check_picture(path: Path, flag: str = "--out") -> None:
    """Call before starting the work.

    Raises:
        UsageError: the path cannot be written, or its suffix is not a known picture format.
    """
    check_writable(path, flag)
    if path.suffix.lower() not in _FORMATS:
        raise UsageError(f"{flag} must end in {', '.join(_FORMATS)}; got {path}")


def check_size(path: Path, height: int, width: int, advice: str) -> None:
    """Call before starting the work.

    Raises:
        UsageError: the format or this machine's memory cannot hold so many pixels.
    """
    _check_sides(path, height, width, advice)
    size = f"the picture would have {width:,}x{height:,} pixels"
    if height * width > _MAX_PIXELS:
        raise UsageError(f"{size}, and the limit is {_MAX_PIXELS:,} in total: {advice}")
    needed, free = height * width * _BYTES_PER_PIXEL, free_memory()
    if free is not None and needed > free:
        raise UsageError(f"{size}, which need {needed / 1e9:.1f} GB of memory; {free / 1e9:.1f} GB are free: {advice}")


def _check_sides(path: Path, height: int, width: int, advice: str) -> None:
    kind = _FORMATS[path.suffix.lower()]
    if max(height, width) > kind.largest_side:
        raise UsageError(
            f"the picture would have {width:,}x{height:,} pixels, and {kind.name} is limited to {kind.largest_side:,} "
            f"a side: {advice}"
        )


def to_images(pixels: Tensor) -> Tensor:
    """uint8 [B, H, W, 3] in 0..255 -> float32 [B, 3, H, W] in [-1, 1], channels_last in memory."""
    return pixels.permute(0, 3, 1, 2).float() / 127.5 - 1


def flipped(pixels: Tensor, flips: Tensor) -> Tensor:
    """Pixels [B, H, W, 3], those whose entry of `flips`, [B], is not zero mirrored left to right."""
    return torch.where(flips.bool()[:, None, None, None], pixels.flip(2), pixels)


def to_pixels(images: Tensor) -> np.ndarray:
    """Images [B, 3, H, W] in [-1, 1] -> uint8 [B, H, W, 3]; values outside are clipped."""
    scaled = ((images.detach().float() + 1) * 127.5).round().clamp(0, 255)
    return scaled.to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()


def finite_pixels(images: Tensor) -> np.ndarray:
    """`to_pixels` for a model's output.

    Raises:
        FastvaeError: a value is NaN or infinite, which `to_pixels` would turn into a colour.
    """
    if not torch.isfinite(images).all():
        raise FastvaeError("the model's images contain NaN or infinity: did training diverge? Use another checkpoint")
    return to_pixels(images)


def psnr_db(images: Tensor, fakes: Tensor) -> Tensor:
    """10 log10(255^2 / mean squared error of the pixels) of each image in dB, [B]; both [B, 3, H, W] in [-1, 1]."""
    error = ((fakes - images) * 127.5).square().flatten(1).mean(1)
    return 10 * torch.log10(255**2 / error.clamp_min(1e-12))


class Sheet:
    """A white sheet with a cell for each image, filled in parts, so that only the sheet must fit into memory.

    Args:
        count: cells, at least 1.
        columns: cells in a row; reduced to `count` if larger.
        image_size: height and width of the images in pixels.
        gap: pixels between images, and around them.

    Attributes:
        columns: cells in a row.
        pixels: uint8 [height, width, 3].

    Raises:
        FastvaeError: not enough memory.
    """

    def __init__(self, count: int, columns: int, image_size: tuple[int, int], gap: int = _GAP):
        self._image_size, self._gap, self.columns = image_size, gap, min(columns, count)
        try:
            self.pixels = np.full((*sheet_size(count, columns, image_size, gap), 3), 255, np.uint8)
        except MemoryError as error:
            raise FastvaeError(f"not enough memory for a sheet of {count:,} images: make fewer") from error

    def put(self, images: np.ndarray, cells: Iterable[int]) -> None:
        """Puts images uint8 [B, H, W, 3] into cells, counted row by row from 0."""
        (height, width), gap = self._image_size, self._gap
        for image, cell in zip(images, cells, strict=True):
            row, column = divmod(cell, self.columns)
            top, left = gap + row * (height + gap), gap + column * (width + gap)
            self.pixels[top : top + height, left : left + width] = image


def sheet_size(count: int, columns: int, image_size: tuple[int, int], gap: int = _GAP) -> tuple[int, int]:
    """Height and width of a `Sheet` in pixels."""
    columns = min(columns, count)
    (height, width), rows = image_size, -(-count // columns)
    return rows * (height + gap) + gap, columns * (width + gap) + gap


class PairSheet:
    """A sheet with each row of originals directly above the row of their reconstructions.

    Args:
        count: originals, at least 1.
        columns: images in a row.
        image_size: height and width of the images in pixels.

    Attributes:
        pixels: uint8 [height, width, 3].
    """

    def __init__(self, count: int, columns: int, image_size: tuple[int, int]):
        self._sheet = Sheet(pair_cells(count, columns), min(columns, count), image_size)
        self.pixels = self._sheet.pixels

    def put(self, originals: np.ndarray, reconstructions: np.ndarray, first: int) -> None:
        """Puts originals and reconstructions, each uint8 [B, H, W, 3], from pair number `first` on, counted from 0."""
        columns, numbers = self._sheet.columns, range(first, first + len(originals))
        cells = [number // columns * 2 * columns + number % columns for number in numbers]
        self._sheet.put(originals, cells)
        self._sheet.put(reconstructions, (cell + columns for cell in cells))


def pair_cells(count: int, columns: int) -> int:
    """Cells in the sheet of that many pairs."""
    columns = min(columns, count)
    return 2 * columns * -(-count // columns)


def grid(pixels: np.ndarray, columns: int, gap: int = _GAP) -> np.ndarray:
    """uint8 [B, H, W, 3] -> one sheet with white gaps, uint8 [height, width, 3], filled row by row."""
    sheet = Sheet(len(pixels), columns, pixels.shape[1:3], gap)
    sheet.put(pixels, range(len(pixels)))
    return sheet.pixels


def beside(originals: np.ndarray, reconstructions: np.ndarray, columns: int = 8) -> np.ndarray:
    """A `PairSheet` as one array, uint8 [height, width, 3]."""
    sheet = PairSheet(len(originals), columns, originals.shape[1:3])
    sheet.put(originals, reconstructions, 0)
    return sheet.pixels


def save_picture(sheet: np.ndarray, path: Path, *, text: Mapping[str, str] | None = None, durable: bool = True) -> None:
    """Writes a uint8 [H, W, 3] array in the format of the path's suffix; creates the folder if needed.

    Args:
        sheet: the pixels.
        path: one that `check_picture` accepts. JPEG and WebP are written at quality 95.
        text: kept in a PNG's text chunks, by keyword.
        durable: see `atomic_file`.

    Raises:
        UsageError: the format cannot hold so many pixels.
        FastvaeError: it cannot be written; no incomplete file is left.
    """
    _check_sides(path, *sheet.shape[:2], "make fewer images, or use an --out that ends in .png")
    kind = _FORMATS[path.suffix.lower()]
    options = dict(kind.options)
    if text is not None:
        options["pnginfo"] = PngInfo()
        for keyword, value in text.items():
            options["pnginfo"].add_text(keyword, value)
    advice = "free some space, check the permissions, or choose another path"
    try:
        with atomic_file(path, advice=advice, durable=durable) as temporary:
            Image.fromarray(sheet).save(temporary, format=kind.name, **options)
    except MemoryError as error:
        raise FastvaeError(f"not enough memory to write {path}: make fewer images") from error
