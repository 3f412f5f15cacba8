"""Grids: every image in its place, nothing stretched."""

import numpy as np
import pytest
import torch
from PIL import Image

from fastvae import pictures
from fastvae.errors import UsageError
from fastvae.pictures import (
    PairSheet,
    Sheet,
    beside,
    check_picture,
    check_size,
    grid,
    save_picture,
    sheet_size,
    to_pixels,
)


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


def test_a_sheet_filled_in_pieces_is_the_whole_one():
    images = flat(*range(7))
    sheet = Sheet(7, columns=3, image_size=(4, 4))
    for start in (0, 2, 4, 6):
        sheet.put(images[start : start + 2], range(start, min(start + 2, 7)))
    assert (sheet.pixels == grid(images, columns=3)).all() and sheet.pixels.shape[:2] == sheet_size(7, 3, (4, 4))
    pairs = PairSheet(7, columns=3, image_size=(4, 4))
    for start in (0, 5):
        pairs.put(images[start : start + 5], 100 + images[start : start + 5], start)
    assert (pairs.pixels == beside(images, 100 + images, columns=3)).all()


@pytest.mark.parametrize(
    ("name", "kind"), [("a.png", "PNG"), ("a.jpg", "JPEG"), ("a.JPEG", "JPEG"), ("a.webp", "WEBP"), ("a.b.PNG", "PNG")]
)
def test_what_the_ending_says_is_written(name, kind, tmp_path):
    sheet = grid(flat(10, 200, size=16), columns=2)
    check_picture(tmp_path / name)
    save_picture(sheet, tmp_path / name)
    with Image.open(tmp_path / name) as picture:
        assert picture.format == kind
        assert np.abs(np.asarray(picture.convert("RGB")).astype(int) - sheet).mean() < (1 if kind != "PNG" else 1e-9)


@pytest.mark.parametrize("name", ["a.gif", "a", "png", ".png", "a.png.txt", "folder.png"])
def test_other_endings_and_folders_are_refused(name, tmp_path):
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(UsageError) as error:
        check_picture(tmp_path / name)
    assert "\n" not in str(error.value)
    assert all(ending in str(error.value) for ending in (".png", ".jpg", ".webp")) or "is a folder" in str(error.value)


def test_pictures_that_cannot_be(tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "free_memory", lambda: 10**9)
    check_size(tmp_path / "a.png", 100_000, 1000, "fewer")
    for name, height, width in (("a.png", 10**6 + 1, 8), ("a.jpg", 8, 65_501), ("a.webp", 16_384, 8)):
        with pytest.raises(UsageError, match=r"limited to [0-9,]+ a side: fewer"):
            check_size(tmp_path / name, height, width, "fewer")
    with pytest.raises(UsageError, match="in total"):
        check_size(tmp_path / "a.png", 10**6, 10**6, "fewer")
    with pytest.raises(UsageError, match=r"1\.4 GB of memory; 1\.0 GB are free"):
        check_size(tmp_path / "a.png", 200_000, 1000, "fewer")


def test_a_file_does_not_hold_more_than_its_format(tmp_path):
    with pytest.raises(UsageError, match="use an --out that ends in"):
        save_picture(np.zeros((65_501, 1, 3), np.uint8), tmp_path / "a.jpg")
    assert not list(tmp_path.iterdir())
