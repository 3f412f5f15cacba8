"""A feed of several ranks, each of which keeps the images that it needs in this epoch, and passes them on after it.

The order of an epoch is the same for any number of ranks, so which images a rank needs changes with each epoch. Each
image is loaded once, by the rank that needs it in the first epoch. Between two epochs every rank sends every other one
the images that go there, in one all-to-all; who has what follows from the orders of both epochs, so nothing else is
said.
"""

import numpy as np
import torch
from torch import Tensor

from fastvae.data.loaders.loader import Loader
from fastvae.distributed.ranks import Ranks
from fastvae.train.device_feed import DeviceFeed
from fastvae.train.order import BatchOrder


class ShardedFeed(DeviceFeed):
    """Keeps this rank's share of the training images on the device, in the order of the epoch.

    The share is of all images, those included that do not fill a batch, since another rank may need them next. Memory:
    the share, and twice as much while images are exchanged.

    Args:
        loader: of the data set; closed when the share is loaded.
        train: int64 [count], the loader's indices of the training images.
        order: of positions in `train`.
        device: of the array.
        ranks: that share the images.
    """

    def __init__(self, loader: Loader, train: np.ndarray, order: BatchOrder, device: torch.device, ranks: Ranks):
        most = -(-order.count // ranks.size)
        super().__init__(loader, train, order, device, rows=most, plan=most // order.batch_size)
        self._ranks, self._epoch, self._filled = ranks, -1, 0
        rows = self._plan[:, 0]
        rows.copy_(torch.arange(rows.numel(), device=device).view_as(rows))

    def ready(self, step: int) -> None:
        """Loads the images of a step, and before an epoch's first one gets those that other ranks have."""
        epoch, images = self.order.place(step)
        if self._batches is None:
            self._begin(epoch, images)
        if epoch != self._epoch:
            self._fill(len(self._share))
            self._exchange(epoch)
        index = (images - self._skipped) // self.order.global_batch
        self._point_to(index, step)
        self._fill((index + 1) * self.order.batch_size)

    def _begin(self, epoch: int, images: int) -> None:
        # Of the epoch in which the run begins or goes on, what was used already comes last.
        self._epoch, self._skipped = epoch, images
        self._sequence = np.roll(self.order.epoch(epoch), -images)
        self._share = self._sequence[self._ranks.rank :: self._ranks.size]
        size = self.order.batch_size
        pieces = (self._share[start : start + size] for start in range(0, len(self._share), size))
        self._batches = self._loader.batches(self._train[piece] for piece in pieces)
        self._plan_flips()

    def _fill(self, until: int) -> None:
        while self._filled < until:
            stop = min(self._filled + self.order.batch_size, len(self._share))
            # Of a run that goes on late in an epoch, most of the share is loaded at that epoch's end, in one call.
            with self._ranks.reads(f"reading images {self._filled + 1} to {stop} of this rank's share"):
                self._receive(self.rows[self._filled : stop])
            self._filled = stop
            if stop == len(self._share):
                self._batches.close()

    def _exchange(self, epoch: int) -> None:
        """Replaces the rows by those of another epoch; on a GPU without waiting for it."""
        size, rank = self._ranks.size, self._ranks.rank
        before, after = _places(self._sequence), _places(self.order.epoch(epoch))
        self._sequence = self.order.epoch(epoch)
        leaving, self._share = self._share, self._sequence[rank::size]
        # Sorted by the other rank, then by the place in the new order.
        to, here = after[leaving] % size, before[self._share] % size
        sent = leaving[np.lexsort((after[leaving], to))]
        sends, receives = np.bincount(to, minlength=size).tolist(), np.bincount(here, minlength=size).tolist()
        outgoing = self.rows.index_select(0, self._indices(before[sent] // size))
        incoming = self._ranks.exchange(outgoing, sends, receives)
        self.rows.index_copy_(0, self._indices(np.argsort(here, kind="stable")), incoming)
        self._epoch, self._skipped = epoch, 0
        self._last = None  # the first epoch may have had fewer batches than the plan
        self._plan_flips()

    def _plan_flips(self) -> None:
        flips = self.order.flips_in(self._epoch, self._share)
        if flips is not None:
            planned = np.zeros(self._plan[:, 1].shape, np.int64)
            planned.flat[: len(flips)] = flips[: planned.size]  # the last images of an epoch may fill no batch
            self._plan[:, 1].copy_(self._pinned(planned), non_blocking=True)

    def _indices(self, rows: np.ndarray) -> Tensor:
        return self._pinned(rows).to(self.device, non_blocking=True)


def _places(sequence: np.ndarray) -> np.ndarray:
    """Where each position comes in a sequence."""
    places = np.empty_like(sequence)
    places[sequence] = np.arange(len(sequence))
    return places
