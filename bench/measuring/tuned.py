"""torch's speed settings, the same for every contender."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def tuned(device: str) -> Iterator[None]:
    """Within it, on a GPU, TF32 for float32 and cuDNN's search for its fastest kernels; on a CPU nothing changes."""
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.benchmark
    if device == "cuda":
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.benchmark = True
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.benchmark = before[1]
