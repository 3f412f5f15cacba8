"""The batch of a step: complete epochs, the same on every call."""

from itertools import islice

import numpy as np
import pytest

from fastvae.config import TrainConfig
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
    with pytest.raises(
        FastvaeError, match=r"at least one batch of 64 training images; there are 40.* --batch-size or more"
    ):
        BatchOrder(40, 64, seed=0)
    with pytest.raises(
        FastvaeError, match=r"batch of 24 training images on each of 2 ranks.* --batch-size, fewer ranks or"
    ):
        BatchOrder(40, 24, seed=0, ranks=2)


@pytest.mark.parametrize("ranks", [2, 3])
def test_ranks_share_the_steps_of_one_process(ranks):
    alone = BatchOrder(40, 4 * ranks, seed=1)
    shares = [BatchOrder(40, 4, seed=1, rank=rank, ranks=ranks) for rank in range(ranks)]
    assert all(share.steps_per_epoch == alone.steps_per_epoch for share in shares)
    for step in range(2 * alone.steps_per_epoch + 1):
        # Image j of a step is the next one of rank j % ranks.
        assert np.array_equal(np.stack([share[step] for share in shares], axis=1).ravel(), alone[step])


def test_an_epoch_goes_on_with_batches_of_another_size():
    """After 3 steps of 8 images, of 40, each with one rank: steps of two ranks, then of three."""
    order = BatchOrder(40, 8, seed=1, rank=1, ranks=2)
    order.start_at(3, 0, 24)
    assert [order.place(step) for step in range(3, 8)] == [(0, 24), (1, 0), (1, 16), (2, 0), (2, 16)]
    assert np.array_equal(order[3], order.epoch(0)[25:40:2])
    assert order.steps_of(TrainConfig(epochs=2)) == 6 and order.steps_of(TrainConfig(epochs=1)) == 4
    assert order.epochs(3) == 24 / 32 and order.epochs(4) == 1.0

    order = BatchOrder(40, 8, seed=1, ranks=3)
    order.start_at(3, 0, 24)  # what is left of the epoch does not fill a step
    assert [order.place(step) for step in range(3, 6)] == [(1, 0), (2, 0), (3, 0)]
    assert order.steps_of(TrainConfig(epochs=2)) == 4


def test_a_run_that_goes_on_with_as_many_ranks_has_the_same_steps():
    before, after = BatchOrder(40, 8, seed=1), BatchOrder(40, 8, seed=1)
    after.start_at(7, *before.place(7))
    assert all(np.array_equal(before[step], after[step]) for step in range(7, 20))
    assert after.steps_of(TrainConfig(epochs=3)) == before.steps_of(TrainConfig(epochs=3)) == 15
