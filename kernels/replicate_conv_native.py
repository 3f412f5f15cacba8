"""`replicate_conv2d` without upsampling on CPUs in float32, by Winograd's algorithm in C++; see `winograd`.

For calls that want gradients, and those that a compiler takes apart; plain inference runs ATen, without waiting for the
C++ to be compiled, and so `dispatch.provider` says "aten".
"""

import torch
from torch import Tensor

from . import winograd
from .dispatch import forced, provider_on


def runs(x: Tensor, weight: Tensor, upsample: int) -> bool:
    """Whether the C++ code computes such a call, and both gradients; x may be a gradient of its result."""
    return (
        upsample == 1
        and x.device.type == weight.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and winograd.gains(x.shape[0], weight.shape[1], len(weight), *x.shape[2:])
        and forced("replicate_conv2d") is None
        and provider_on("zero_padded_conv2d", x.device, x.dtype) == "native"  # the same library
    )


# Opaque to compilers, which take `replicate_conv2d` apart but cannot look into C++.
@torch.library.custom_op("fastvae::replicate_conv2d_native", mutates_args=())
def forward(x: Tensor, weight: Tensor) -> Tensor:
    """The convolution alone, in channels_last."""
    tile = winograd.tile_for(*x.shape[2:])
    return winograd.convolve(x, winograd.transformed(weight, tile, backward=False), len(weight), tile, copies=True)


@forward.register_fake
def _(x: Tensor, weight: Tensor) -> Tensor:
    b, _, h, w = x.shape
    return x.new_empty((b, len(weight), h, w)).contiguous(memory_format=torch.channels_last)


def data_gradient(grad: Tensor, weight: Tensor) -> Tensor:
    """dL/dx from dL/dy, in channels_last."""
    return winograd.data_gradient(grad, weight, winograd.tile_for(*grad.shape[2:]), copies=True)


def weight_gradient(grad: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    """dL/dweight from dL/dy."""
    return winograd.weight_gradient(x, grad, weight, winograd.tile_for(*x.shape[2:]), copies=True)
