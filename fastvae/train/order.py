"""Which images a step sees: a function of the seed and the step, so that resuming needs no other state."""

from collections.abc import Iterator

import numpy as np

from fastvae.config import TrainConfig
from fastvae.data.order import epoch_order
from fastvae.errors import FastvaeError


class BatchOrder:
    """Positions in the training set by step number. An epoch's last ones that do not fill a batch are left out.

    Args:
        count: training images.
        batch_size: images a step.
        seed: of the order.

    Raises:
        FastvaeError: there are fewer training images than one batch.
    """

    def __init__(self, count: int, batch_size: int, seed: int):
        self.count, self.batch_size, self.seed = count, batch_size, seed
        self.steps_per_epoch = count // batch_size
        self._epoch, self._permutation = -1, np.empty(0, np.int64)
        if not self.steps_per_epoch:
            raise FastvaeError(
                f"there are {count} training images, fewer than one batch of {batch_size}: "
                "give a smaller --batch-size or more images"
            )

    def steps_of(self, train: TrainConfig) -> int:
        """Steps of a whole run: `train.steps`, or as many as its epochs have."""
        return train.steps or train.epochs * self.steps_per_epoch

    def epoch(self, epoch: int) -> np.ndarray:
        """int64 [count]: all positions in that epoch's order; the last count % batch_size are the ones left out."""
        if epoch != self._epoch:
            self._epoch, self._permutation = epoch, epoch_order(self.count, seed=self.seed, epoch=epoch)
        return self._permutation

    def __getitem__(self, step: int) -> np.ndarray:
        """int64 [batch_size]: the positions of step number `step`, from 0."""
        epoch, index = divmod(step, self.steps_per_epoch)
        return self.epoch(epoch)[index * self.batch_size : (index + 1) * self.batch_size]

    def since(self, step: int) -> Iterator[np.ndarray]:
        """The batches of step number `step` and of all later ones, without end."""
        while True:
            yield self[step]
            step += 1
