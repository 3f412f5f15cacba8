"""Which images a step uses, and which of them are flipped: functions of seed and step number, so that resuming needs no
other state."""

from collections.abc import Iterator
from functools import lru_cache

import numpy as np

from fastvae.config import TrainConfig
from fastvae.data.flips import flips
from fastvae.data.order import epoch_order
from fastvae.errors import FastvaeError


class BatchOrder:
    """Positions in the training set for each step. The last positions of an epoch that do not fill a batch are dropped.

    Args:
        count: number of training images.
        batch_size: images per step.
        seed: of the order and the flips.
        flip: whether images are flipped.

    Raises:
        FastvaeError: there are fewer training images than `batch_size`.
    """

    def __init__(self, count: int, batch_size: int, seed: int, *, flip: bool = False):
        self.count, self.batch_size, self.seed, self.flip = count, batch_size, seed, flip
        self.steps_per_epoch = count // batch_size
        # Two, because loaders read ahead into the next epoch.
        self._permutation = lru_cache(maxsize=2)(lambda epoch: epoch_order(count, seed=seed, epoch=epoch))
        if not self.steps_per_epoch:
            raise FastvaeError(
                f"expected at least one batch of {batch_size} training images; there are {count}: "
                "give a smaller --batch-size or more images"
            )

    def steps_of(self, train: TrainConfig) -> int:
        """Steps of a complete run: `train.steps`, or those of `train.epochs`."""
        return train.steps or train.epochs * self.steps_per_epoch

    def epoch(self, epoch: int) -> np.ndarray:
        """int64 [count]: all positions in the order of that epoch; the last count % batch_size are dropped."""
        return self._permutation(epoch)

    def __getitem__(self, step: int) -> np.ndarray:
        """int64 [batch_size]: the positions for step number `step`, from 0."""
        epoch, index = divmod(step, self.steps_per_epoch)
        return self.epoch(epoch)[index * self.batch_size : (index + 1) * self.batch_size]

    def flips(self, step: int) -> np.ndarray | None:
        """bool [batch_size]: whether each image of step number `step` is flipped; None if none ever is."""
        return self.flips_in(step // self.steps_per_epoch, self[step]) if self.flip else None

    def flips_in(self, epoch: int, positions: np.ndarray) -> np.ndarray | None:
        """bool, of the shape of `positions`: whether each image is flipped in that epoch; None if none ever is."""
        return flips(positions, seed=self.seed, epoch=epoch) if self.flip else None

    def since(self, step: int) -> Iterator[np.ndarray]:
        """Yields the batches of step number `step` and of all later steps, without end."""
        while True:
            yield self[step]
            step += 1
