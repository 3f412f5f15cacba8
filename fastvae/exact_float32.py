"""float32 without TF32."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def exact_float32() -> Iterator[None]:
    """Within it CUDA's convolutions and matrix products of float32 round to float32; then all is as it was.

    pytest's monkeypatch cannot do this: it ends by deleting the attribute, which torch refuses.
    """
    settings = (torch.backends.cuda.matmul, torch.backends.cudnn.conv)
    before = [each.fp32_precision for each in settings]
    try:
        for each in settings:
            each.fp32_precision = "ieee"
        yield
    finally:
        for each, value in zip(settings, before, strict=True):
            each.fp32_precision = value
