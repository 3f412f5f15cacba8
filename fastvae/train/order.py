"""Which images a step uses, and which of them are flipped: functions of seed and step number, the same whatever number
of processes share a step."""

from collections.abc import Iterator
from functools import lru_cache

import numpy as np

from fastvae.config import TrainConfig
from fastvae.data.flips import flips
from fastvae.data.order import epoch_order
from fastvae.errors import FastvaeError


class BatchOrder:
    """Positions in the training set for each step. The last positions of an epoch that do not fill a batch are dropped.

    A step uses `batch_size` times `ranks` images, the next ones of the epoch's order; rank r has those numbered r,
    r + ranks, and so on.

    Args:
        count: number of training images.
        batch_size: images per step and rank.
        seed: of the order and the flips.
        flip: whether images are flipped.
        rank: of this process.
        ranks: number of processes.

    Attributes:
        global_batch: images per step.
        steps_per_epoch: of an epoch that has as many ranks from its start to its end.

    Raises:
        FastvaeError: there are fewer training images than one step uses.
    """

    def __init__(self, count: int, batch_size: int, seed: int, *, flip: bool = False, rank: int = 0, ranks: int = 1):
        self.count, self.batch_size, self.seed, self.flip = count, batch_size, seed, flip
        self.rank, self.ranks = rank, ranks
        self.global_batch = batch_size * ranks
        self.steps_per_epoch = count // self.global_batch
        # Two, because loaders read ahead into the next epoch.
        self._permutation = lru_cache(maxsize=2)(lambda epoch: epoch_order(count, seed=seed, epoch=epoch))
        self._origin = 0, 0, 0
        if not self.steps_per_epoch:
            each, fewer = (f" on each of {ranks} ranks", ", fewer ranks") if ranks > 1 else ("", "")
            raise FastvaeError(
                f"expected at least one batch of {batch_size} training images{each}; there are {count}: "
                f"give a smaller --batch-size{fewer} or more images"
            )

    def start_at(self, step: int, epoch: int, images: int) -> None:
        """Step number `step` and those after it go on after the first `images` of an epoch's order.

        So a run goes on with another number of ranks: its steps so far used batches of another size.
        """
        self._origin = step, epoch, images

    def place(self, step: int) -> tuple[int, int]:
        """The epoch of a step number, and how many images of its order were used before it."""
        first, epoch, images = self._origin
        step -= first
        if step < self._left:
            return epoch, images + step * self.global_batch
        epochs, steps = divmod(step - self._left, self.steps_per_epoch)
        return epoch + 1 + epochs, steps * self.global_batch

    def epochs(self, step: int) -> float:
        """Epochs done after that many steps, with a fraction."""
        epoch, images = self.place(step)
        usual = self.steps_per_epoch * self.global_batch
        return (epoch * usual + images) / usual

    def steps_of(self, train: TrainConfig) -> int:
        """Steps of a complete run: `train.steps`, or those of `train.epochs`."""
        if train.steps:
            return train.steps
        first, epoch, _ = self._origin
        if epoch >= train.epochs:
            return first
        return first + self._left + (train.epochs - epoch - 1) * self.steps_per_epoch

    @property
    def _left(self) -> int:
        """Steps of the epoch of `start_at`, from there on."""
        return max(0, self.count - self._origin[2]) // self.global_batch

    def epoch(self, epoch: int) -> np.ndarray:
        """int64 [count]: all positions in the order of that epoch, for all ranks; the last ones are dropped."""
        return self._permutation(epoch)

    def __getitem__(self, step: int) -> np.ndarray:
        """int64 [batch_size]: this rank's positions for step number `step`, from 0."""
        epoch, images = self.place(step)
        return self.epoch(epoch)[images + self.rank : images + self.global_batch : self.ranks]

    def flips(self, step: int) -> np.ndarray | None:
        """bool [batch_size]: which of this rank's images of step number `step` are flipped; None if none ever is."""
        return self.flips_in(self.place(step)[0], self[step]) if self.flip else None

    def flips_in(self, epoch: int, positions: np.ndarray) -> np.ndarray | None:
        """bool, of the shape of `positions`: whether each image is flipped in that epoch; None if none ever is."""
        return flips(positions, seed=self.seed, epoch=epoch) if self.flip else None

    def since(self, step: int) -> Iterator[np.ndarray]:
        """Yields this rank's batches of step number `step` and of all later steps, without end."""
        while True:
            yield self[step]
            step += 1
