"""How broken pictures are counted and named."""

import contextlib
from concurrent.futures import ThreadPoolExecutor

import pytest

from fastvae.data.loaders.broken import BrokenPictures
from fastvae.errors import FastvaeError

NAMES = [f"{number}.jpg" for number in range(300)]


def test_each_is_counted_and_named_once(caplog):
    broken = BrokenPictures(NAMES)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: broken.add(number % 3, "torn"), range(300)))
    assert sorted(record.getMessage() for record in caplog.records) == [
        f"{number}.jpg is broken and another picture takes its place: torn" for number in range(3)
    ]
    assert 2 in broken and 3 not in broken


def test_one_too_many():
    broken = BrokenPictures(NAMES)
    for number in (200, 7, 5):
        broken.add(number, "torn")
    with pytest.raises(FastvaeError) as error:
        broken.add(100, "burnt")
    assert str(error.value) == (
        "4 or more of 300 images are broken, and at most 3 (1 %) may be; remove or replace them. "
        "First: 5.jpg: torn; 7.jpg: torn; 100.jpg: burnt; 200.jpg: torn"
    )


def test_ten_are_named():
    broken = BrokenPictures(NAMES)
    for number in range(20):
        with pytest.raises(FastvaeError) if number >= 3 else contextlib.nullcontext():
            broken.add(number, "torn")
    with pytest.raises(FastvaeError, match="20 or more") as error:
        broken.add(0, "torn")
    assert str(error.value).count("torn") == 10
