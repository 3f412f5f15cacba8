"""The order of the images in an epoch, determined by (seed, epoch) alone."""

import numpy as np

from fastvae.errors import UsageError


def epoch_order(count: int, *, seed: int, epoch: int, rank: int = 0, world_size: int = 1) -> np.ndarray:
    """Indices of the images that one rank visits in one epoch, in order.

    All ranks share one permutation; rank r takes every world_size-th entry, starting with entry r. So step k of a run
    with global batch B visits permutation[k B : (k + 1) B] for any number of ranks. The last count % world_size entries
    are dropped, so that all shards have the same length; the dropped images differ from epoch to epoch.

    The permutation is the stable argsort of raw 64-bit PCG64 output. NumPy guarantees that the streams of its bit
    generators and seed sequences never change (NEP 19), but does not guarantee it for `Generator.permutation`, so this
    order is the same on every machine and with every NumPy. A test pins it.

    Args:
        count: number of images, 0 or more.
        seed: 0 or more.
        epoch: 0 or more.
        rank: this process, 0 to world_size - 1.
        world_size: number of processes, at most count unless count is 0.

    Returns:
        int64 [count // world_size], distinct values in 0 .. count - 1.

    Raises:
        UsageError: an argument is out of range, or there are fewer images than ranks.
    """
    for name, value in (("count", count), ("seed", seed), ("epoch", epoch)):
        if value < 0:
            raise UsageError(f"{name} must be 0 or more; got {value}")
    if world_size < 1 or not 0 <= rank < world_size:
        raise UsageError(f"rank must be in 0 .. world_size - 1; got rank {rank} of world_size {world_size}")
    if 0 < count < world_size:
        raise UsageError(f"{count} images cannot be divided among {world_size} ranks; use at most {count} ranks")
    # spawn_key distinguishes (seed, epoch) pairs for seeds of any size; a plain list of integers would not.
    keys = np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(epoch,))).random_raw(count)
    permutation = np.argsort(keys, kind="stable").astype(np.int64, copy=False)
    return np.ascontiguousarray(permutation[rank : count - count % world_size : world_size])
