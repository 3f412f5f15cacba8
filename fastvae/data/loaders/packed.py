"""Batches from a packed file: rows of its memory map, gathered in a background thread."""

from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from torch import Tensor

from fastvae.data.loaders.loader import empty_batch, started_ahead
from fastvae.data.packed import PackedImages

_AHEAD = 4


class PackedLoader:
    """A `loader.Loader` of a packed file.

    One thread: a batch of 64 images of 64x64 pixels is 0.8 MB, which a core copies in 0.1 ms; only the wait for the
    disk is worth hiding.

    Args:
        images: the file.
    """

    def __init__(self, images: PackedImages):
        self.image_size = images.images.shape[1]
        self._images = images.images

    def batches(self, indices: Iterable[np.ndarray]) -> Generator[Tensor, None, None]:
        """See `loader.Loader.batches`."""
        pool = ThreadPoolExecutor(1, "packed loader")

        def start(batch: np.ndarray) -> Callable[[], Tensor]:
            return pool.submit(self._gather, batch).result

        try:
            yield from started_ahead(start, indices, ahead=_AHEAD)
        finally:
            pool.shutdown(cancel_futures=True)

    def _gather(self, indices: np.ndarray) -> Tensor:
        batch = empty_batch(len(indices), self.image_size)
        if not 0 <= indices.min() <= indices.max() < len(self._images):
            raise IndexError(f"indices must be 0 to {len(self._images) - 1}; got {indices.min()} to {indices.max()}")
        # mode="raise" would make a copy first.
        np.take(self._images, indices, axis=0, out=batch.numpy(), mode="clip")
        return batch
