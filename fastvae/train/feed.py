"""Feeds: where a step gets its images from.

    HostFeed       the loader's batches as they come; for CPUs
    ResidentFeed   all training images on the device, loaded during the first epoch: 64x64 CelebA is 2.5 GB
    ShardedFeed    the same of several ranks, each with its share of the images
    StreamFeed     a ring of batches on the device, if the images do not fit

`ready(step)` runs on the host and is called for each step in order. `batch()` runs on the device and may be captured in
a CUDA graph; `state` are the tensors that it changes. It gives the pixels as they are in the data set, beside which of
them the step flips: there that costs no launch of its own.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from fastvae.data.loaders.loader import Loader
from fastvae.distributed.ranks import ALONE, Ranks
from fastvae.train.device_feed import Batch, ResidentFeed, StreamFeed
from fastvae.train.order import BatchOrder
from fastvae.train.sharded_feed import ShardedFeed

# Share of the GPU's free memory that resident images may take; the step needs the rest.
_MAX_RESIDENT = 0.5
# Of a rank's share of the images, its size while they are exchanged.
_IN_EXCHANGE = 3


class HostFeed:
    """Passes on the loader's batches.

    Args:
        loader: of the data set.
        train: int64 [count], the loader's indices of the training images.
        order: of positions in `train`.
    """

    state: tuple[Tensor, ...] = ()

    def __init__(self, loader: Loader, train: np.ndarray, order: BatchOrder):
        self.order = order
        self._loader, self._train = loader, train
        self._last: int | None = None
        self._batches: Iterator[Tensor] | None = None

    def ready(self, step: int) -> None:
        """Fetches the batch of a step."""
        if step == self._last:
            return
        if self._last is None or step != self._last + 1:
            self.close()
            self._batches = self._loader.batches(self._train[positions] for positions in self.order.since(step))
        self._pixels = next(self._batches)
        flips = self.order.flips(step)
        self._flips = None if flips is None else torch.from_numpy(flips)
        self._last = step

    def batch(self) -> Batch:
        """The batch of the step; valid until the next call of `ready`."""
        return self._pixels, self._flips

    def close(self) -> None:
        """Stops the loader's threads."""
        if self._batches is not None:
            self._batches.close()


Feed = HostFeed | ResidentFeed | ShardedFeed | StreamFeed


def choose_feed(
    loader: Loader,
    train: np.ndarray,
    order: BatchOrder,
    *,
    device: torch.device,
    resident: str,
    ranks: Ranks = ALONE,
) -> tuple[Feed, str]:
    """The feed of a run, and a message that says which one and why.

    Args:
        loader: of the data set.
        train: int64 [count], the loader's indices of the training images.
        order: of positions in `train`.
        device: of the step.
        resident: "on", "off", or "auto": on for a GPU if the images take at most half of its free memory.
        ranks: that share a step; each keeps its share of the images.
    """
    reason = "as requested"
    if resident == "auto" and device.type == "cuda":
        size, free = len(train) * loader.image_size**2 * 3, torch.cuda.mem_get_info(device)[0]
        needed = size if ranks.alone else _IN_EXCHANGE * size / ranks.size
        (streams,) = ranks.largest(needed > _MAX_RESIDENT * free)  # if any must, all do
        resident = "off" if streams else "on"
        reason = f"they are {size / 1e9:.2f} GB and {free / 1e9:.1f} GB of the GPU's memory are free"
    if resident == "on" and not ranks.alone:
        share = f"images kept on the {device.type}, 1/{ranks.size} of them by each rank: {reason}"
        return ShardedFeed(loader, train, order, device, ranks), share
    if resident == "on":
        return ResidentFeed(loader, train, order, device), f"images kept on the {device.type}: {reason}"
    if device.type == "cuda":
        return StreamFeed(loader, train, order, device), f"images streamed to the GPU: {reason}"
    return HostFeed(loader, train, order), "images read on the CPU, batch by batch"
