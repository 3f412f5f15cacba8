"""How broken pictures are counted and named."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from fastvae.data.loaders.broken import BrokenPictures
from fastvae.errors import FastvaeError

NAMES = [f"{number}.jpg" for number in range(300)]


def test_each_is_counted_once():
    broken = BrokenPictures(NAMES, "replace them")
    with ThreadPoolExecutor(8) as pool:
        new = list(pool.map(lambda number: broken.add(number % 3, "torn"), range(300)))
    assert sum(new) == len(broken) == 3
    assert broken.lines() == [f"{number}.jpg: torn" for number in range(3)]
    assert 2 in broken and 3 not in broken
    broken.check()


def test_one_too_many():
    broken = BrokenPictures(NAMES, "replace them")
    for number in (200, 7, 5):
        broken.add(number, "torn")
        broken.check()
    broken.add(100, "burnt")
    with pytest.raises(FastvaeError) as error:
        broken.check()
    assert str(error.value) == (
        "at least 4 of 300 images are broken, and the limit is 3 (1 %): replace them. "
        "First: 5.jpg: torn; 7.jpg: torn; 100.jpg: burnt; 200.jpg: torn"
    )


def test_ten_are_named():
    broken = BrokenPictures(NAMES, "replace them")
    for number in range(20):
        broken.add(number, "torn")
    with pytest.raises(FastvaeError, match="at least 20") as error:
        broken.check()
    assert str(error.value).count("torn") == 10
