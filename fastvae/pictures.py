"""Grids of images, the form in which runs are looked at."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fastvae.whole_file import whole_file


def to_pixels(images: Tensor) -> np.ndarray:
    """Images [B, 3, H, W] in [-1, 1] -> uint8 [B, H, W, 3]; values outside are clipped."""
    scaled = ((images.detach().float() + 1) * 127.5).round().clamp(0, 255)
    return scaled.to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()


def grid(pixels: np.ndarray, columns: int, gap: int = 2) -> np.ndarray:
    """uint8 [B, H, W, 3] -> one white-gapped sheet, uint8 [rows, width, 3], filled row by row."""
    count, height, width, _ = pixels.shape
    columns = min(columns, count)
    rows = -(-count // columns)
    sheet = np.full((rows * (height + gap) + gap, columns * (width + gap) + gap, 3), 255, np.uint8)
    for i, picture in enumerate(pixels):
        top, left = gap + i // columns * (height + gap), gap + i % columns * (width + gap)
        sheet[top : top + height, left : left + width] = picture
    return sheet


def beside(originals: np.ndarray, reconstructions: np.ndarray, columns: int = 8) -> np.ndarray:
    """A sheet in which each row of originals has the row of its reconstructions right below it."""
    columns = min(columns, len(originals))
    blank = np.full((-len(originals) % columns, *originals.shape[1:]), 255, np.uint8)
    # [pairs of rows, 2, columns, H, W, 3]: each row of originals, then the row of its reconstructions.
    rows = [np.concatenate([p, blank]).reshape(-1, columns, *p.shape[1:]) for p in (originals, reconstructions)]
    return grid(np.stack(rows, 1).reshape(-1, *originals.shape[1:]), columns)


def save_png(sheet: np.ndarray, path: Path) -> None:
    """Writes a uint8 [H, W, 3] array as PNG, making the folder where needed.

    Raises:
        FastvaeError: it cannot be written; no half-written file is left.
    """
    advice = "free some space, check the permissions, or choose another place"
    with whole_file(path, advice=advice) as temporary:
        Image.fromarray(sheet).save(temporary, format="PNG")
