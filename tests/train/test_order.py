"""The batch of a step: complete epochs, the same on every call."""

from itertools import islice

import numpy as np
import pytest

from fastvae.errors import FastvaeError
from fastvae.train.order import BatchOrder


def test_an_epoch_visits_every_image_once():
    order = BatchOrder(40, batch_size=8, seed=1)
    assert order.steps_per_epoch == 5
    epochs = [np.concatenate([order[step] for step in range(e * 5, e * 5 + 5)]) for e in range(2)]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(40))
    assert list(epochs[0]) != list(epochs[1])


def test_any_step_can_be_asked_for_first():
    forward, backward = BatchOrder(40, 8, seed=1), BatchOrder(40, 8, seed=1)
    expected = [forward[step] for step in range(12)]
    for step in reversed(range(12)):
        assert np.array_equal(backward[step], expected[step])
    for found, step in zip(islice(backward.since(3), 9), range(3, 12), strict=True):
        assert np.array_equal(found, expected[step])
    assert not np.array_equal(BatchOrder(40, 8, seed=2)[0], expected[0])


def test_images_that_do_not_fill_a_batch_are_left_out():
    order = BatchOrder(40, batch_size=16, seed=0)
    assert order.steps_per_epoch == 2
    assert order[1].shape == order[2].shape == (16,)
    assert np.array_equal(np.concatenate([order[2], order[3]]), order.epoch(1)[:32])
    assert sorted(order.epoch(1)) == list(range(40))


def test_too_few_images():
    with pytest.raises(FastvaeError, match="at least one batch of 64 training images; there are 40"):
        BatchOrder(40, 64, seed=0)
