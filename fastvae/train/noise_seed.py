"""The seed of a rank's noise generator."""

import numpy as np


def noise_seed(seed: int, rank: int, step: int = 0) -> int:
    """Of a rank's noise generator from a step on: for rank 0 at step 0 the run's own seed, else a hash of all three."""
    if rank == 0 and step == 0:
        return seed
    return int(np.random.SeedSequence(seed, spawn_key=(rank, step)).generate_state(1, np.uint64)[0] >> np.uint64(1))
