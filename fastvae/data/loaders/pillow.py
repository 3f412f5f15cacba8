"""Batches of picture files decoded by Pillow, in threads: reads every format on every machine."""

from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from torch import Tensor

from fastvae.data.loaders.loader import empty_batch, started_ahead
from fastvae.data.loaders.picture_files import PictureFiles

_AHEAD = 3
# Pictures per task: small enough that all threads work on one batch, large enough to hide the cost of a task.
_TASK = 8


class PillowLoader:
    """A `loader.Loader` of picture files; broken ones are replaced as in `PictureFiles`.

    Args:
        pictures: the files.
        workers: number of threads, 1 or more.
    """

    def __init__(self, pictures: PictureFiles, *, workers: int):
        self.image_size = pictures.image_size
        self._pictures, self._workers = pictures, workers

    def batches(self, indices: Iterable[np.ndarray]) -> Generator[Tensor, None, None]:
        """See `loader.Loader.batches`."""
        pool = ThreadPoolExecutor(self._workers, "pillow loader")

        def start(batch: np.ndarray) -> Callable[[], Tensor]:
            pixels = empty_batch(len(batch), self.image_size)
            rows = pixels.numpy()
            starts = range(0, len(batch), _TASK)
            tasks = [pool.submit(self._decode, batch[at : at + _TASK], rows[at : at + _TASK]) for at in starts]

            def finish() -> Tensor:
                for task in tasks:
                    task.result()
                return pixels

            return finish

        try:
            yield from started_ahead(start, indices, ahead=_AHEAD)
        finally:
            pool.shutdown(cancel_futures=True)

    def _decode(self, indices: np.ndarray, rows: np.ndarray) -> None:
        for row, index in zip(rows, indices, strict=True):
            row[:] = self._pictures.decode(index)
