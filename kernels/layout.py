"""Memory layouts: the order of a tensor's elements in memory, and channels for tensor cores."""

import torch
import torch.nn.functional as F
from torch import Tensor

# Tensor cores read 16 bytes at a time: eight numbers of half precision.
ALIGNED_CHANNELS = 8


def is_dense(x: Tensor) -> bool:
    """Whether the elements fill a contiguous range of memory, each once, in any order of the axes."""
    side_by_side = 1
    for stride, size in sorted((stride, size) for stride, size in zip(x.stride(), x.shape, strict=True) if size != 1):
        if stride != side_by_side:
            return False
        side_by_side *= size
    return True


def channels_last(x: Tensor) -> Tensor:
    """x in channels_last, itself where it is."""
    return x.contiguous(memory_format=torch.channels_last)


def with_channels(x: Tensor, channels: int) -> Tensor:
    """x [B, C, H, W] with zeros as further channels, [B, channels, H, W]; in a compiled graph no kernel of its own.

    A convolution whose weight has as many more input channels, all zero or not, gives the same result.
    """
    if channels <= x.shape[1]:
        return x
    # In the order of memory, or Inductor pads in the other order and transposes the result.
    return F.pad(x.permute(0, 2, 3, 1), (0, channels - x.shape[1])).permute(0, 3, 1, 2)
