import numpy as np
import pytest

from fastvae.data.order import epoch_order
from fastvae.errors import UsageError


def test_visits_every_image_once():
    order = epoch_order(1000, seed=3, epoch=1)
    assert order.dtype == np.int64
    assert sorted(order) == list(range(1000))


def test_is_a_function_of_seed_and_epoch():
    assert np.array_equal(epoch_order(100, seed=1, epoch=2), epoch_order(100, seed=1, epoch=2))
    others = [(1, 3), (2, 2), (2, 1), (2**40 + 1, 2)]
    assert all(
        not np.array_equal(epoch_order(100, seed=1, epoch=2), epoch_order(100, seed=s, epoch=e)) for s, e in others
    )


def test_never_changes():
    # Runs that are resumed under another version must go on in the same order.
    assert epoch_order(10, seed=0, epoch=0).tolist() == [6, 3, 8, 1, 4, 5, 9, 2, 7, 0]
    assert epoch_order(10, seed=7, epoch=5).tolist() == [4, 6, 9, 3, 0, 7, 1, 2, 5, 8]


def test_is_uniform():
    firsts = [epoch_order(4, seed=0, epoch=epoch)[0] for epoch in range(4000)]
    assert np.allclose(np.bincount(firsts) / 4000, 0.25, atol=0.03)


def test_no_images():
    assert epoch_order(0, seed=0, epoch=0).shape == (0,)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"count": -1, "seed": 0, "epoch": 0}, "count must be 0 or more; got -1"),
        ({"count": 5, "seed": -2, "epoch": 0}, "seed must be 0 or more; got -2"),
        ({"count": 5, "seed": 0, "epoch": -1}, "epoch must be 0 or more; got -1"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(UsageError, match=message):
        epoch_order(**arguments)
