"""torch's speed settings as who cares for speed has them."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def tuned(device: str) -> Iterator[None]:
    """Within it, on a GPU, TF32 for float32 and cuDNN's search for its fastest kernels; on a CPU nothing changes."""
    if device != "cuda":
        yield
        return
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    # Not by set_float32_matmul_precision, which cannot restore "none": compiled code would not be found in the cache.
    before = matmul.fp32_precision, cudnn.benchmark
    matmul.fp32_precision, cudnn.benchmark = "tf32", True
    try:
        yield
    finally:
        matmul.fp32_precision, cudnn.benchmark = before
