"""Which images a step uses: a function of seed and step number, so that resuming needs no other state."""

from collections.abc import Iterator

import numpy as np

from fastvae.config import TrainConfig
from fastvae.data.order import epoch_order
from fastvae.errors import FastvaeError


class BatchOrder:
    """Positions in the training set for each step. The last positions of an epoch that do not fill a batch are dropped.

    Args:
        count: number of training images.
        batch_size: images per step.
        seed: of the order.

    Raises:
        FastvaeError: there are fewer training images than `batch_size`.
    """

    def __init__(self, count: int, batch_size: int, seed: int):
        self.count, self.batch_size, self.seed = count, batch_size, seed
        self.steps_per_epoch = count // batch_size
        self._epoch, self._permutation = -1, np.empty(0, np.int64)
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
        if epoch != self._epoch:
            self._epoch, self._permutation = epoch, epoch_order(self.count, seed=self.seed, epoch=epoch)
        return self._permutation

    def __getitem__(self, step: int) -> np.ndarray:
        """int64 [batch_size]: the positions for step number `step`, from 0."""
        epoch, index = divmod(step, self.steps_per_epoch)
        return self.epoch(epoch)[index * self.batch_size : (index + 1) * self.batch_size]

    def since(self, step: int) -> Iterator[np.ndarray]:
        """Yields the batches of step number `step` and of all later steps, without end."""
        while True:
            yield self[step]
            step += 1
