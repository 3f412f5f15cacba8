"""The batch of a given step: a function of the seed and the step, so that resuming needs no other state."""

import numpy as np
import torch
from torch import Tensor

from fastvae.config import TrainConfig
from fastvae.data.order import epoch_order
from fastvae.data.packed import PackedImages
from fastvae.errors import FastvaeError


class Batches:
    """Training batches by step number. An epoch's last images that do not fill a batch are left out.

    Args:
        images: the data set; its train split is used.
        batch_size: images a step.
        seed: of the order.

    Raises:
        FastvaeError: there are fewer training images than one batch.
    """

    def __init__(self, images: PackedImages, batch_size: int, seed: int):
        self.pixels, self.batch_size, self.seed = images.images, batch_size, seed
        self.train = images.indices("train")
        self.steps_per_epoch = len(self.train) // batch_size
        if not self.steps_per_epoch:
            raise FastvaeError(
                f"{images.path} has {len(self.train)} training images, fewer than one batch of {batch_size}: "
                "give a smaller --batch-size or more images"
            )
        self._epoch, self._order = -1, np.empty(0, np.int64)

    def steps_of(self, train: TrainConfig) -> int:
        """Steps of a whole run: `train.steps`, or as many as its epochs have."""
        return train.steps or train.epochs * self.steps_per_epoch

    def __getitem__(self, step: int) -> Tensor:
        """uint8 [batch_size, H, W, 3]: the batch of step number `step`, from 0."""
        epoch, position = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            self._epoch, self._order = (
                epoch,
                self.train[epoch_order(len(self.train), seed=self.seed, epoch=epoch)],
            )
        chosen = self._order[position * self.batch_size : (position + 1) * self.batch_size]
        return torch.from_numpy(self.pixels[chosen])
