"""Which images are for what, and the memory that they take."""

import numpy as np
import pytest

from fastvae.attributes import choose_splits
from fastvae.attributes.memory import Memory
from fastvae.errors import FastvaeError
from tests.attributes.data import write


def test_the_partition_as_it_is(tmp_path):
    splits = choose_splits(write(tmp_path / "a.fvae", counts=(5, 3, 4)))
    assert [list(part) for part in (splits.train, splits.choose, splits.test)] == [
        [0, 1, 2, 3, 4],
        [5, 6, 7],
        [8, 9, 10, 11],
    ]
    assert "validation split" in splits.description


@pytest.mark.parametrize("counts, missing", [((5, 4, 0), "test"), ((5, 0, 4), "validation")])
def test_held_out_images_are_halved(tmp_path, counts, missing):
    splits = choose_splits(write(tmp_path / "a.fvae", counts=counts))
    assert list(splits.choose) == [5, 7] and list(splits.test) == [6, 8]
    assert f"no {missing} split" in splits.description and "halved" in splits.description


@pytest.mark.parametrize(
    "counts, words", [((5, 1, 0), "one image"), ((5, 0, 0), "held-out"), ((0, 4, 4), "no training images")]
)
def test_too_few(tmp_path, counts, words):
    with pytest.raises(FastvaeError, match=words):
        choose_splits(write(tmp_path / "a.fvae", counts=counts))


def test_subsets_are_seeded_and_said(tmp_path):
    packed = write(tmp_path / "a.fvae", counts=(50, 8, 30))
    first, same, other = (choose_splits(packed, max_train=10, test_images=6, seed=seed) for seed in (1, 1, 2))
    assert len(set(first.train)) == 10 and first.train.max() < 50 and len(first.test) == 6 and first.test.min() >= 58
    assert np.array_equal(first.train, same.train) and not np.array_equal(first.train, other.train)
    assert "10 of 50 training images" in first.description and "6 of 30 test images" in first.description
    images = first.images()
    within = first.within(images)
    for part in ("train", "choose", "test"):
        assert np.array_equal(images[getattr(within, part)], getattr(first, part))


def test_memory_of_celeba_in_full():
    memory = Memory.of(202_599, 162_770, 500)
    assert memory.features == 405_198_000 and memory.standardised == 810_396_000
    assert memory.fit == pytest.approx(1.3e9, rel=0.01)
    assert memory.jobs(16, None) == 16 and memory.jobs(16, 4 * 10**9) == 2 and memory.jobs(2, 10**11) == 2
    assert "2 classifiers at once 1.3 GB each; 3.8 GB in all" in memory.summary(2)
    with pytest.raises(FastvaeError, match=r"2.5 GB needed, 2.0 GB free"):
        memory.jobs(16, 2 * 10**9)
