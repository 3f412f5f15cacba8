"""Fresh memory full of NaN, so that an element that no kernel writes is seen."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch


def _poisoned(make):
    def empty(*args, **kwargs):
        result = make(*args, **kwargs)
        return result.fill_(float("nan")) if result.is_floating_point() else result

    return empty


@contextmanager
def poisoned_memory() -> Iterator[None]:
    """Within the block torch's ways to allocate without writing give NaN."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("empty", "empty_like", "empty_strided"):
            patch.setattr(torch, name, _poisoned(getattr(torch, name)))
        patch.setattr(torch.Tensor, "new_empty", _poisoned(torch.Tensor.new_empty))
        yield
