"""The order of the images in an epoch, determined by (seed, epoch) alone."""

import numpy as np

from fastvae.errors import UsageError


def epoch_order(count: int, *, seed: int, epoch: int) -> np.ndarray:
    """Indices of the images that one epoch visits, in order.

    The permutation is the stable argsort of raw 64-bit PCG64 output. NumPy guarantees that the streams of its bit
    generators and seed sequences never change (NEP 19), but does not guarantee it for `Generator.permutation`, so this
    order is the same on every machine and with every NumPy. A test pins it.

    Args:
        count: number of images, 0 or more.
        seed: 0 or more.
        epoch: 0 or more.

    Returns:
        int64 [count], a permutation of 0 .. count - 1.

    Raises:
        UsageError: an argument is out of range.
    """
    for name, value in (("count", count), ("seed", seed), ("epoch", epoch)):
        if value < 0:
            raise UsageError(f"{name} must be 0 or more; got {value}")
    # spawn_key distinguishes (seed, epoch) pairs for seeds of any size; a plain list of integers would not.
    keys = np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(epoch,))).random_raw(count)
    return np.argsort(keys, kind="stable").astype(np.int64, copy=False)
