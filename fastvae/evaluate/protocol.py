"""The evaluation protocol: which images are compared with which. Scores of different protocols are not comparable."""

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
        floor: int64 [n], other real images; their FID is what a perfect model could reach. None: not wanted.
        held_out: int64 [n], the images to reconstruct.
        summary: human-readable description of the protocol.
    """

    name: str
    count: int
    reference: np.ndarray
    floor: np.ndarray | None
    held_out: np.ndarray
    summary: str


def plan(
    packed: PackedImages, name: str, count: int | None, seed: int, *, floor: bool = True, generates: bool = True
) -> Protocol:
    """The protocol for a data set.

    "paper": as many held-out images as generated ones (2,000, as in the paper), and as many training images for the
    floor. "usual": 50,000 generated images against the complete training split, as in most later papers, and up to
    `count` held-out images for the floor.

    Args:
        packed: the data set.
        name: "paper" or "usual".
        count: of generated images; None for the protocol's default, reduced for "paper" to the number of real images.
        seed: of the random choice of real images.
        floor: whether to compare real images with real ones, too.
        generates: whether images are generated and compared; if not, only held-out images are needed, one or more.

    Raises:
        UsageError: the count is too small or too large for the data.
        FastvaeError: no images are held out.
    """
    train, held_out = packed.indices("train"), packed.held_out()
    limit = min(len(train), len(held_out)) if floor and generates else len(held_out)
    if not generates and not (name == "paper" and count is not None and count > limit):
        kept = _subset(held_out, min(count or COUNTS[name], len(held_out)), seed)
        return Protocol(name, 0, train[:0], None, kept, f"{len(kept):,} held-out images, reconstructed")
    if count is None:
        count = COUNTS[name]
        if name == "paper" and SPLITS <= limit < count:
            count = limit  # stated in the summary: FIDs are comparable at equal counts only
    if count < SPLITS:
        raise UsageError(f"--count must be {SPLITS} or more, for the parts of the Inception Score; got {count}")
    if name == "usual":
        if min(len(train), len(held_out)) < SPLITS:
            raise UsageError(
                f"{packed.path.name} has {len(train)} training and {len(held_out)} held-out images; at least {SPLITS} "
                "of each are needed"
            )
        kept = _subset(held_out, min(count, len(held_out)), seed)
        summary = f"{count:,} generated images against all {len(train):,} training images"
        named = f"; floor: {len(kept):,} held-out images" if floor else ""
        return Protocol(name, count, train, kept if floor else None, kept, summary + named)
    if count > limit:
        small = "training" if limit < len(held_out) else "held-out"
        few = f"at least {SPLITS} are needed" if generates else "leave it out"
        advice = f"give --count {limit}" if limit >= SPLITS else few
        raise UsageError(
            f"--count {count:,} is too large for {packed.path.name}: it has {limit:,} {small} images; {advice}"
        )
    kept = _subset(held_out, count, seed)
    named = f"; floor: {count:,} training images" if floor else ""
    summary = f"{count:,} generated images against {count:,} held-out images{named}"
    return Protocol(name, count, kept, _subset(train, count, seed) if floor else None, kept, summary)


def _subset(indices: np.ndarray, count: int, seed: int) -> np.ndarray:
    return np.sort(np.random.default_rng(seed).permutation(indices)[:count])
