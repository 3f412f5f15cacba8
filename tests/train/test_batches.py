"""The batch of a step: complete epochs, held-out images left alone, the same on every call."""

import numpy as np
import pytest
import torch

from fastvae.errors import FastvaeError
from fastvae.train.batches import Batches


def key(image: torch.Tensor) -> bytes:
    return image.numpy().tobytes()


def test_an_epoch_visits_every_training_image_once(packed):
    batches = Batches(packed, batch_size=8, seed=1)
    assert batches.steps_per_epoch == 5
    epochs = [[key(image) for step in range(e * 5, e * 5 + 5) for image in batches[step]] for e in range(2)]
    training = sorted(np.asarray(packed.images[i]).tobytes() for i in packed.indices("train"))
    assert sorted(epochs[0]) == sorted(epochs[1]) == training
    assert epochs[0] != epochs[1]


def test_any_step_can_be_asked_for_first(packed):
    forward, backward = Batches(packed, 8, seed=1), Batches(packed, 8, seed=1)
    expected = [forward[step] for step in range(12)]
    for step in reversed(range(12)):
        assert torch.equal(backward[step], expected[step])
    assert not torch.equal(Batches(packed, 8, seed=2)[0], expected[0])


def test_images_that_do_not_fill_a_batch_are_left_out(packed):
    batches = Batches(packed, batch_size=16, seed=0)
    assert batches.steps_per_epoch == 2
    assert batches[1].shape == batches[2].shape == (16, 32, 32, 3)


def test_too_few_images(packed):
    with pytest.raises(FastvaeError, match="40 training images, fewer than one batch of 64"):
        Batches(packed, 64, seed=0)
