"""Feeds on a device: an array of images that a loader fills and that a captured step reads without the host.

A step gathers `rows[plan[cursor]]` and advances the cursor, so that each replay of the same CUDA graph takes the next
batch and the host sends nothing. Where images are flipped, the plan says so beside each row, so that one launch reads
both.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from fastvae.data.loaders.loader import Loader
from fastvae.train.order import BatchOrder

# uint8 [B, H, W, 3], and which of them to flip: [B], not zero for those, or None for none.
Batch = tuple[Tensor, Tensor | None]
# Batches: one is read while up to three are being copied.
_RING = 4


class DeviceFeed:
    """What all feeds do on the device: gather `rows[plan[cursor]]`, then advance the cursor, modulo the plan's length.

    Args:
        loader: of the data set.
        train: int64 [count], the loader's indices of the training images.
        order: of positions in `train`.
        device: of the array.
        rows: number of images in the array.
        plan: number of batches in the plan.

    Attributes:
        rows: uint8 [rows, H, W, 3], the array.
        state: the tensors that `batch` changes.
    """

    def __init__(
        self, loader: Loader, train: np.ndarray, order: BatchOrder, device: torch.device, *, rows: int, plan: int
    ):
        self.order, self.device = order, device
        self._loader, self._train = loader, train
        self._batches: Iterator[Tensor] | None = None
        size = loader.image_size
        self.rows = torch.zeros(rows, size, size, 3, dtype=torch.uint8, device=device)
        # [batches, rows, and flips if there are any, B]
        self._plan = torch.zeros(plan, 1 + order.flip, order.batch_size, dtype=torch.int64, device=device)
        self._cursor = torch.zeros(1, dtype=torch.int64, device=self.device)
        self.state = (self._cursor,)
        self._last: int | None = None
        self._copying = torch.cuda.Stream(self.device) if self.device.type == "cuda" else None
        if self._copying is not None:
            self._copying.wait_stream(torch.cuda.current_stream(self.device))  # which is still zeroing `rows`

    def batch(self) -> Batch:
        """The batch at the cursor, a copy."""
        rows, *flips = self._plan.index_select(0, self._cursor)[0]
        self._cursor.add_(1).remainder_(len(self._plan))
        return self.rows.index_select(0, rows), flips[0] if flips else None

    def _point_to(self, index: int, step: int) -> None:
        """Sets the cursor to a batch of the plan, unless the last step left it there."""
        if self._last is None or step not in (self._last, self._last + 1):
            self._cursor.fill_(index)
        self._last = step

    @contextmanager
    def _copies(self, after: torch.cuda.Event | None = None) -> Iterator[None]:
        """On a GPU, copies in its block overlap with earlier work, and work enqueued after the block waits for them.

        Args:
            after: on a GPU, the event after which what they write to may be overwritten.
        """
        if self._copying is None:
            yield
            return
        with torch.cuda.stream(self._copying):
            if after is not None:
                self._copying.wait_event(after)
            yield
        torch.cuda.current_stream(self.device).wait_stream(self._copying)

    def _receive(self, target: Tensor, after: torch.cuda.Event | None = None) -> None:
        """Copies the loader's next batch as `_copies` does.

        Args:
            target: a slice of `rows`.
            after: as for `_copies`.
        """
        with self._copies(after):
            target.copy_(next(self._batches), non_blocking=True)

    def _pinned(self, array: np.ndarray) -> Tensor:
        """On a GPU in pinned memory, so that a non-blocking copy does not wait for steps that are in the queue."""
        tensor = torch.from_numpy(array)
        return tensor.pin_memory() if self.device.type == "cuda" else tensor

    def close(self) -> None:
        """Stops the loader's threads."""
        if self._batches is not None:
            self._batches.close()


class ResidentFeed(DeviceFeed):
    """Keeps all training images on the device.

    The loader delivers them in the order of the first epoch, so batch k of that epoch is in rows k B to (k + 1) B;
    later epochs have another plan. A run resumed within an epoch starts with the rest of that epoch; images that its
    steps do not use are loaded at its end.

    Args:
        loader: of the data set; closed when all images are loaded.
        train: int64 [count], the loader's indices of the training images.
        order: of positions in `train`.
        device: of the array.
    """

    def __init__(self, loader: Loader, train: np.ndarray, order: BatchOrder, device: torch.device):
        super().__init__(loader, train, order, device, rows=len(train), plan=order.steps_per_epoch)
        self._epoch: int | None = None
        self._filled = 0

    def ready(self, step: int) -> None:
        """Loads the images of a step, and at the start of an epoch its plan."""
        epoch, images = self.order.place(step)
        index = images // self.order.batch_size
        if self._batches is None:
            self._begin(epoch, index)
        if epoch != self._epoch:
            self._fill(len(self.rows) if self._epoch is not None else 0)
            self._make_plan(epoch)
        self._point_to(index, step)
        self._fill(min(len(self.rows), (index - self._first_index + 1) * self.order.batch_size))

    def _begin(self, epoch: int, index: int) -> None:
        sequence = np.roll(self.order.epoch(epoch), -index * self.order.batch_size)
        self._row_of = np.empty_like(sequence)
        self._row_of[sequence] = np.arange(len(sequence))
        self._first_index = index
        size = self.order.batch_size
        self._batches = self._loader.batches(
            self._train[sequence[start : start + size]] for start in range(0, len(sequence), size)
        )

    def _fill(self, until: int) -> None:
        while self._filled < until:
            stop = min(self._filled + self.order.batch_size, len(self.rows))
            self._receive(self.rows[self._filled : stop])
            self._filled = stop
            if stop == len(self.rows):
                self._batches.close()

    def _make_plan(self, epoch: int) -> None:
        positions = self.order.epoch(epoch)[: self._plan[:, 0].numel()].reshape(self._plan[:, 0].shape)
        flips = self.order.flips_in(epoch, positions)
        rows = self._row_of[positions]
        self._plan.copy_(self._pinned(np.stack([rows] if flips is None else [rows, flips], 1)), non_blocking=True)
        self._epoch = epoch


class StreamFeed(DeviceFeed):
    """A ring buffer of batches on the device.

    Args:
        loader: of the data set.
        train: int64 [count], the loader's indices of the training images.
        order: of positions in `train`.
        device: of the ring.
    """

    def __init__(self, loader: Loader, train: np.ndarray, order: BatchOrder, device: torch.device):
        super().__init__(loader, train, order, device, rows=_RING * order.batch_size, plan=_RING)
        self._plan[:, 0] = torch.arange(len(self.rows), device=device).view(_RING, -1)
        self._read = [torch.cuda.Event() for _ in range(_RING)] if self._copying else None

    def ready(self, step: int) -> None:
        """Copies the batch of a step into the ring."""
        if self._last is not None and step == self._last:
            return
        if self._last is None or step != self._last + 1:
            self.close()
            self._batches = self._loader.batches(self._train[positions] for positions in self.order.since(step))
        slot, size = step % _RING, self.order.batch_size
        if self._read and self._last is not None:
            # The last step is completely enqueued by now.
            self._read[self._last % _RING].record()
        self._point_to(slot, step)
        after = self._read[slot] if self._read else None
        self._receive(self.rows[slot * size : (slot + 1) * size], after)
        if (flips := self.order.flips(step)) is not None:
            with self._copies(after):
                self._plan[slot, 1].copy_(self._pinned(flips.astype(np.int64)), non_blocking=True)
