"""Memory layouts, for kernels that read several tensors in the order of memory."""

from torch import Tensor


def is_dense(x: Tensor) -> bool:
    """Whether the elements fill a contiguous range of memory, each once, in any order of the axes."""
    side_by_side = 1
    for stride, size in sorted((stride, size) for stride, size in zip(x.stride(), x.shape, strict=True) if size != 1):
        if stride != side_by_side:
            return False
        side_by_side *= size
    return True
