"""Which images are compared with which: numbers without it cannot be compared."""

from dataclasses import dataclass

import numpy as np

from fastvae.data.packed import PackedImages
from fastvae.errors import UsageError
from fastvae.evaluate.inception_score import SPLITS

COUNTS = {"paper": 2000, "usual": 50000}


@dataclass(frozen=True)
class Protocol:
    """What an evaluation compares.

    Attributes:
        name: "paper" or "usual".
        count: images that each run draws from the prior.
        reference: int64 [n], the real images that FID compares with.
        floor: int64 [n], other real images, whose FID shows what a perfect model could reach.
        held_out: int64 [n], the images to reconstruct.
        words: all of it, for people.
    """

    name: str
    count: int
    reference: np.ndarray
    floor: np.ndarray
    held_out: np.ndarray
    words: str


def plan(packed: PackedImages, name: str, count: int | None, seed: int) -> Protocol:
    """The protocol for a data set.

    "paper": as many held-out images as generated ones (2,000, of which the paper's scores are), and as many training
    images for the floor. "usual": 50,000 generated images against the whole training split, as most papers since do,
    and the held-out images, up to `count`, for the floor.

    Args:
        packed: the data set.
        name: "paper" or "usual".
        count: of generated images; None for the protocol's own, or for as many as "paper" has real ones.
        seed: of the choice among the real images.

    Raises:
        UsageError: the count is too small or too large for the data.
        FastvaeError: no images are held out.
    """
    train, held_out = packed.indices("train"), packed.held_out()
    if count is None:
        count, most = COUNTS[name], min(len(train), len(held_out))
        if name == "paper" and SPLITS <= most < count:
            count = most  # as the words below say; FID is to be compared at equal counts only
    if count < SPLITS:
        raise UsageError(f"--count must be {SPLITS} or more, for the parts of the Inception Score; got {count}")
    if name == "usual":
        if min(len(train), len(held_out)) < 2:
            raise UsageError(f"{packed.path} has {len(train)} training and {len(held_out)} held-out images: too few")
        kept = _some(held_out, min(count, len(held_out)), seed)
        words = f"{count:,} generated images against all {len(train):,} training images"
        return Protocol(name, count, train, kept, kept, f"{words}; floor: {len(kept):,} held-out images")
    if count > (most := min(len(train), len(held_out))):
        small = "training" if len(train) < len(held_out) else "held-out"
        advice = f"give --count {most}" if most >= SPLITS else f"at least {SPLITS} are needed"
        raise UsageError(
            f"--count {count:,} is too large for {packed.path.name}: it has {most:,} {small} images; {advice}"
        )
    kept = _some(held_out, count, seed)
    words = f"{count:,} generated images against {count:,} held-out images; floor: {count:,} training images"
    return Protocol(name, count, kept, _some(train, count, seed), kept, words)


def _some(indices: np.ndarray, count: int, seed: int) -> np.ndarray:
    return np.sort(np.random.default_rng(seed).permutation(indices)[:count])
