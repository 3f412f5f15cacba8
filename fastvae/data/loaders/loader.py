"""What the training loop asks of whoever brings it images."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


class Loader(Protocol):
    """Brings images by their positions in the data set.

    Which pixels come for an index depends on the data set alone: not on the batch it is in, the order, the number of
    threads or the timing.

    Attributes:
        image_size: pixels a side.
    """

    image_size: int

    def batches(self, indices: Iterable[np.ndarray]) -> Generator[Tensor, None, None]:
        """Loads batches in the background, a few ahead of their reader.

        Args:
            indices: for each batch int64 [b], positions in the whole data set, b from 1 to the loader's batch size;
                may be endless. It is read a few batches ahead, in order, in the thread that asks for batches.

        Yields:
            For each uint8 [b, H, W, 3], 0..255, RGB, valid until the next is asked for. On the host it is pinned where
            there is CUDA, and a non-blocking copy of it may still be under way when the next is asked for; on a
            device it is ready for, and may be read on, the stream that was current when it was asked for.

        Closing the generator ends its threads.

        Raises:
            FastvaeError: more than 1 % of the data set cannot be read.
        """
        ...


def empty_batch(count: int, size: int) -> Tensor:
    """uint8 [count, size, size, 3] on the host, for a batch to be written to.

    Each batch is a new tensor: of pinned ones torch gives the memory out again only when copies from it are done.
    """
    return torch.empty(count, size, size, 3, dtype=torch.uint8, pin_memory=torch.cuda.is_available())


def started_ahead(
    start: Callable[[_Item], Callable[[], _Result]], items: Iterable[_Item], *, ahead: int
) -> Iterator[_Result]:
    """Results in order, with `ahead` more started than asked for.

    Args:
        start: begins the work on an item in the background, and returns what waits for its result.
        items: may be endless.
        ahead: 1 or more.
    """
    started: deque[Callable[[], _Result]] = deque()
    for item in items:
        started.append(start(item))
        if len(started) > ahead:
            yield started.popleft()()
    while started:
        yield started.popleft()()
