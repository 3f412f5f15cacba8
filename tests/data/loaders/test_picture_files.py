"""What stands in for a broken picture, and when there are too many."""

import logging

import numpy as np
import pytest

from fastvae.data.decoders import pillow as decode_pillow
from fastvae.errors import FastvaeError
from tests.data.jpeg_folder import hollow_out, make_odd, overwrite, pictures_in, save_many, spoil


@pytest.fixture
def many(tmp_path):
    save_many(tmp_path)
    return tmp_path


def pillow(folder, index):
    return decode_pillow.decode_file(folder / f"{index:04}.jpg", crop="auto", size=64)


def test_the_next_whole_picture_of_the_split_stands_in(many, caplog):
    pictures = pictures_in(many)
    broken = spoil(many)
    for _ in range(2):
        assert np.array_equal(pictures.decode(0), pillow(many, 1))
        assert np.array_equal(pictures.decode(7), pillow(many, 10))
        assert np.array_equal(pictures.decode(9), pillow(many, 10))
    named = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert [record.name for record in named] == ["fastvae"] * len(broken)
    assert all(f"{index:04}.jpg is broken" in caplog.text for index in broken.values())


def test_a_held_out_picture_never_stands_in(many):
    # Every 20th picture is held out: 19, 39, ...
    for name in ("0018.jpg", "0039.jpg"):
        overwrite(many / name, b"")
    hollow_out(many / "0399.jpg")
    pictures = pictures_in(many)
    assert np.array_equal(pictures.decode(18), pillow(many, 20))
    assert np.array_equal(pictures.decode(39), pillow(many, 59))
    # The first follows the last.
    assert np.array_equal(pictures.decode(399), pillow(many, 19))


def test_more_than_one_percent(many):
    pictures = pictures_in(many)
    for index in range(100, 120):
        (many / f"{index:04}.jpg").unlink()
    with pytest.raises(FastvaeError, match=r"at least 5 of 400 images are broken, and the limit is 4 \(1 %\)") as error:
        pictures.decode(100)
    assert all(f"{index:04}.jpg: " in str(error.value) for index in range(100, 105))
    assert "No such file" in str(error.value)


def test_a_small_split_that_is_broken_as_a_whole(many):
    for split, names in (("validation", ("0019", "0039")), ("train", ())):
        (many / split).mkdir()
        for name in names:
            (many / f"{name}.jpg").rename(many / split / f"{name}.jpg")
    for file in many.glob("*.jpg"):
        file.rename(many / "train" / file.name)
    pictures = pictures_in(many)
    for file in (many / "validation").iterdir():
        overwrite(file, b"")
    with pytest.raises(FastvaeError, match="every picture of the validation split is broken"):
        pictures.decode(399)


def test_odd_pictures_are_not_broken(many, caplog):
    odd = make_odd(many)
    pictures = pictures_in(many)
    for index in odd.values():
        assert np.array_equal(pictures.decode(index), pillow(many, index))
    assert not caplog.records
