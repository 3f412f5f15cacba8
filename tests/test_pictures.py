"""Grids: every image in its place, nothing stretched."""

import numpy as np
import torch

from fastvae.pictures import beside, grid, to_pixels


def flat(*values: int, size: int = 4) -> np.ndarray:
    return np.stack([np.full((size, size, 3), v, np.uint8) for v in values])


def test_to_pixels_rounds_and_clips():
    images = torch.tensor([-2.0, -1.0, 0.0, 1.0]).reshape(4, 1, 1, 1).expand(4, 3, 1, 1)
    assert to_pixels(images)[:, 0, 0, 0].tolist() == [0, 0, 128, 255]


def test_grid_fills_row_by_row():
    sheet = grid(flat(1, 2, 3), columns=2, gap=1)
    assert sheet.shape == (11, 11, 3)
    assert [sheet[1, 1, 0], sheet[1, 6, 0], sheet[6, 1, 0], sheet[6, 6, 0]] == [1, 2, 3, 255]
    assert (sheet[0] == 255).all() and (sheet[:, 5] == 255).all()
    assert grid(flat(1), columns=8, gap=1).shape == (6, 6, 3)


def test_reconstructions_are_below_their_originals():
    sheet = beside(flat(1, 2, 3), flat(11, 12, 13), columns=2)
    column = sheet[3::6, 3, 0]
    assert column.tolist() == [1, 11, 3, 13]
    assert sheet[9, 9, 0] == 12
