"""The interface between the training loop and the loaders."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


class Loader(Protocol):
    """Loads images by their positions in the data set.

    The pixels for an index depend only on the data set, not on the batch, the order, the number of threads or timing.

    Attributes:
        image_size: pixels a side.
    """

    image_size: int

    def batches(self, indices: Iterable[np.ndarray]) -> Generator[Tensor, None, None]:
        """Loads batches in the background, a few ahead of the caller.

        Args:
            indices: for each batch int64 [b], positions in the complete data set, b from 1 to the loader's batch size;
                may be infinite. It is iterated a few batches ahead, in order, in the caller's thread.

        Yields:
            For each batch uint8 [b, H, W, 3], 0..255, RGB, valid until the next one is requested. On the host it is
            pinned if CUDA is available, and a non-blocking copy of it may still be running when the next one is
            requested; on a device it can be read on the stream that was current when it was requested.

        Closing the generator ends its threads.

        Raises:
            FastvaeError: more than 1 % of the data set cannot be read.
        """
        ...


def empty_batch(count: int, size: int) -> Tensor:
    """An uninitialised batch on the host, uint8 [count, size, size, 3].

    Each batch is a new tensor: torch reuses pinned memory only after copies from it are done.
    """
    return torch.empty(count, size, size, 3, dtype=torch.uint8, pin_memory=torch.cuda.is_available())


def started_ahead(
    start: Callable[[_Item], Callable[[], _Result]], items: Iterable[_Item], *, ahead: int
) -> Iterator[_Result]:
    """Results in order, with `ahead` more items started than requested.

    Args:
        start: starts the work on an item in the background, and returns a function that waits for its result.
        items: may be infinite.
        ahead: 1 or more.
    """
    started: deque[Callable[[], _Result]] = deque()
    for item in items:
        started.append(start(item))
        if len(started) > ahead:
            yield started.popleft()()
    while started:
        yield started.popleft()()
