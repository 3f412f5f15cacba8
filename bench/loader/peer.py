"""The peer of the loaders: torch's DataLoader and Pillow, as a training script has it, at its best.

Workers are processes, one for each core, and persistent; batches are uint8, a quarter of what ToTensor makes; they are
pinned where there is CUDA; and the sampler never ends, so that no epoch's end stops the workers.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

# Batches that a worker may be ahead; more of them gain nothing once the reader waits for decoding.
PREFETCH_FACTOR = 4
_BOX = (30, 40, 168, 178)


class Faces(Dataset):
    """CelebA's pictures, cropped and resized.

    Args:
        paths: the files, 178x218.
        size: pixels a side.
    """

    def __init__(self, paths: list[Path], size: int):
        self._paths = [str(path) for path in paths]
        self._size = size

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> Tensor:
        """uint8 [size, size, 3]."""
        with Image.open(self._paths[index]) as picture:
            face = picture.convert("RGB").crop(_BOX).resize((self._size, self._size), Image.Resampling.BILINEAR)
        return torch.from_numpy(np.array(face))


class Endless(torch.utils.data.Sampler):
    """Batches of indices in a new random order each epoch, the first epoch's first one in ascending order."""

    def __init__(self, count: int, batch_size: int):
        self._count, self._batch_size = count, batch_size

    def __iter__(self) -> Iterator[list[int]]:
        yield list(range(self._batch_size))
        random = np.random.default_rng(0)
        while True:
            order = random.permutation(self._count)
            for at in range(0, self._count - self._batch_size + 1, self._batch_size):
                yield order[at : at + self._batch_size].tolist()


def batches(paths: list[Path], *, size: int, batch_size: int, workers: int) -> Iterator[Tensor]:
    """Endless batches, uint8 [batch_size, size, size, 3], on the host; the first holds the first files in order."""
    loader = DataLoader(
        Faces(paths, size),
        batch_sampler=Endless(len(paths), batch_size),
        num_workers=workers,
        prefetch_factor=PREFETCH_FACTOR,
        persistent_workers=True,
        pin_memory=torch.cuda.is_available(),
    )
    return iter(loader)
