"""Which images are compared with which."""

import numpy as np
import pytest

from fastvae.data.packed import PackedImages, PackedWriter
from fastvae.errors import FastvaeError, UsageError
from fastvae.evaluate.protocol import plan
from tests.conftest import blobs


@pytest.fixture
def images(tmp_path) -> PackedImages:
    """60 images: 40 to train on, 15 and 5 of validation and test."""
    with PackedWriter(tmp_path / "set.fvae", image_size=16) as writer:
        writer.append(blobs(60, 16), splits=np.repeat([0, 1, 2], [40, 15, 5]).astype(np.uint8))
    return PackedImages.open(tmp_path / "set.fvae")


def test_paper_compares_equal_counts(images):
    found = plan(images, "paper", 12, seed=0)
    assert found.count == len(found.reference) == len(found.floor) == 12 and found.held_out is found.reference
    assert set(images.splits[found.reference]) == {1} and set(images.splits[found.floor]) == {0}
    assert len(set(found.reference)) == 12 and (np.diff(found.reference) > 0).all()
    assert (plan(images, "paper", 12, seed=0).floor == found.floor).all()
    assert (plan(images, "paper", 12, seed=1).floor != found.floor).any()
    assert found.summary == "12 generated images against 12 held-out images; floor: 12 training images"


def test_without_a_count_the_paper_s_is_lowered_to_what_there_is(images):
    found = plan(images, "paper", None, seed=0)
    assert found.count == len(found.reference) == 15 and found.summary.startswith("15 generated images")


def test_usual_takes_the_whole_training_split(images):
    found = plan(images, "usual", None, seed=0)
    assert found.count == 50_000 and (found.reference == np.arange(40)).all()
    assert found.held_out is found.floor and (found.floor == np.arange(40, 55)).all()
    assert len(plan(images, "usual", 10, seed=0).held_out) == 10


@pytest.mark.parametrize(
    "name, count, words",
    [
        ("paper", 2000, r"--count 2,000 is too large for .*: it has 15 held-out images; give --count 15"),
        ("paper", 9, r"--count must be 10 or more"),
        ("usual", 0, r"--count must be 10 or more"),
    ],
)
def test_counts_that_cannot_be(images, name, count, words):
    with pytest.raises(UsageError, match=words):
        plan(images, name, count, seed=0)


def test_without_generated_images_any_number_will_do(images):
    found = plan(images, "paper", None, seed=0, generates=False)
    assert len(found.held_out) == 15 and found.summary == "15 held-out images, reconstructed"
    images.splits = np.repeat([0, 1], [57, 3]).astype(np.uint8)
    assert len(plan(images, "paper", None, seed=0, generates=False).held_out) == 3
    with pytest.raises(UsageError, match="it has 3 held-out images; leave it out"):
        plan(images, "paper", 12, seed=0, generates=False)


def test_without_a_floor_few_training_images_are_no_limit(images):
    images.splits = np.repeat([0, 1], [11, 49]).astype(np.uint8)
    assert plan(images, "paper", 30, seed=0, floor=False).count == 30
    assert plan(images, "paper", None, seed=0, floor=False).count == 49
    with pytest.raises(UsageError, match="it has 11 training images; give --count 11"):
        plan(images, "paper", 30, seed=0)


def test_nothing_held_out(tmp_path):
    with PackedWriter(tmp_path / "train.fvae", image_size=16) as writer:
        writer.append(blobs(30, 16), splits=np.zeros(30, np.uint8))
    with pytest.raises(FastvaeError, match="every image is in the train split"):
        plan(PackedImages.open(tmp_path / "train.fvae"), "paper", 10, seed=0)
