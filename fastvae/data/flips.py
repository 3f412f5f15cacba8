"""Which images are flipped left to right in an epoch, determined by (seed, epoch, index of the image) alone."""

import numpy as np


def flips(indices: np.ndarray, *, seed: int, epoch: int) -> np.ndarray:
    """A fair coin for each image and epoch.

    SplitMix64 (Steele, Lea and Flood 2014) as a counter-based generator: the top bit of mix(key + (index + 1) gamma)
    modulo 2^64, with a key of (seed, epoch). So an image's coin depends neither on the other images nor on the batch,
    the rank or the loader that it comes with. As for `epoch_order`, a test pins the values.

    Args:
        indices: integers, 0 or more, in any order.
        seed: 0 or more.
        epoch: 0 or more.

    Returns:
        bool, of the shape of `indices`.
    """
    # (epoch,) is the key of the epoch's order, from which the coins must be independent.
    key = np.random.SeedSequence(seed, spawn_key=(epoch, 1)).generate_state(1, np.uint64)
    x = key + (np.asarray(indices).astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (x ^ (x >> np.uint64(31))) >> np.uint64(63) == 1
