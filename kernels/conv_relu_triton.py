"""Triton kernel of `conv_relu`: bias and ReLU in one pass over a convolution's result, in place."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from .dispatch import launch

_WARPS = 8
# Loads of 16 bytes that each thread has under way.
_VECTORS = 2


@triton.jit
def bias_relu_kernel(y, bias, count, CHANNELS: tl.constexpr, BLOCK: tl.constexpr):
    """y = max(y + bias, 0) for one block of y, in the order of memory, in which the channel is the fastest axis."""
    start = tl.program_id(0).to(tl.int64) * BLOCK
    offset = tl.arange(0, BLOCK)
    inside = start + offset < count
    # Channels that the compiler knows cost a mask instead of a division for each element; where a block has whole
    # pixels it also loads neighbours at once. In 32 bits, which only the block's start can exceed.
    first = 0 if BLOCK % CHANNELS == 0 else (start % CHANNELS).to(tl.int32)
    channel = (first + offset) % CHANNELS
    value = tl.load(y + start + offset, mask=inside, other=0.0).to(tl.float32)
    value += tl.load(bias + channel).to(tl.float32)
    value = tl.where(value <= 0, 0.0, value)  # not the maximum, so that NaN stays NaN
    tl.store(y + start + offset, value.to(y.dtype.element_ty), mask=inside)


def bias_relu_(y: Tensor, bias: Tensor) -> Tensor:
    """max(y + bias, 0) in place, added in float32; returns y.

    Args:
        y: [B, C, H, W], contiguous in channels_last.
        bias: [C].
    """
    if not y.is_contiguous(memory_format=torch.channels_last):
        raise ValueError(f"bias_relu_ expects y in channels_last; got strides {y.stride()} for {list(y.shape)}")
    block = 32 * _WARPS * _VECTORS * 16 // y.element_size()
    grid = (triton.cdiv(y.numel(), block),)
    arguments = (y, bias.contiguous(), y.numel())
    launch(bias_relu_kernel, grid, *arguments, CHANNELS=y.shape[1], BLOCK=block, num_warps=_WARPS)
    return y
