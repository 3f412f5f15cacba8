"""3x3 convolution with trained filters: y = conv(x, weight), stride 1, zero padding 1, no bias.

Encoder and critic spend most of a training step in it. On CPUs result and both gradients are computed by Winograd's
algorithm in C++ compiled on the machine, see `winograd`; everything else is torch's convolution. There the filters are
transformed in every call, since they change with every step.

Layout: x and y [B, C, H, W] in channels_last. The backward pass needs x and the weight.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from . import winograd
from .dispatch import is_taken_apart, provider

# Pixels of a batch of maps. With fewer, transforming the filters costs more than it saves: at 256 channels 2.9 ms for
# each direction, as much as 260 pixels save (one AVX2 core).
FEWEST_PIXELS = 512


def conv3x3_ref(x: Tensor, weight: Tensor) -> Tensor:
    """The specification of `conv3x3`."""
    return F.conv2d(x, weight, padding=1)


# Opaque to compilers, which cannot look into C++.
@torch.library.custom_op("fastvae::conv3x3", mutates_args=())
def _forward(x: Tensor, weight: Tensor) -> Tensor:
    tile = winograd.tile_for(*x.shape[2:])
    filters = winograd.transformed(weight, tile, backward=False)
    return winograd.convolve(x, filters, len(weight), tile, mask=None, bias=None)


@_forward.register_fake
def _(x: Tensor, weight: Tensor) -> Tensor:
    b, _, h, w = x.shape
    return x.new_empty((b, len(weight), h, w)).contiguous(memory_format=torch.channels_last)


@torch.library.custom_op("fastvae::conv3x3_backward", mutates_args=())
def _gradients(grad: Tensor, x: Tensor, weight: Tensor, of_x: bool, of_weight: bool) -> tuple[Tensor, Tensor]:
    """dL/dx and dL/dweight from dL/dy; an empty tensor for what is not wanted."""
    dx, dw = grad.new_empty(0), grad.new_empty(0)
    tile = winograd.tile_for(*x.shape[2:])
    if of_x:
        filters = winograd.transformed(weight, tile, backward=True)
        dx = winograd.convolve(grad, filters, weight.shape[1], tile, mask=None, bias=None)
    if of_weight:
        dw = torch.empty_like(weight).copy_(winograd.weight_gradient(x, grad, tile))
    return dx, dw


@_gradients.register_fake
def _(grad: Tensor, x: Tensor, weight: Tensor, of_x: bool, of_weight: bool) -> tuple[Tensor, Tensor]:
    dx = torch.empty_like(x, memory_format=torch.channels_last) if of_x else grad.new_empty(0)
    return dx, torch.empty_like(weight) if of_weight else grad.new_empty(0)


def _save(ctx, inputs, output) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx, grad: Tensor):
    x, weight = ctx.saved_tensors
    wanted = ctx.needs_input_grad
    found = _gradients(grad, x, weight, *wanted)
    return tuple(gradient if wants else None for gradient, wants in zip(found, wanted, strict=True))


_forward.register_autograd(_backward, setup_context=_save)


def fits(x: Tensor, weight: Tensor) -> bool:
    """Whether the C++ code computes such a call: on a CPU in float32, in training, and large enough to gain by it."""
    b, c, h, w = x.shape
    return (
        x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
        and torch.is_grad_enabled()
        and (x.requires_grad or weight.requires_grad)
        and c % winograd.CHANNELS == len(weight) % winograd.CHANNELS == 0
        and b * h * w >= FEWEST_PIXELS
        and max(c, len(weight)) * b * h * w <= winograd.LARGEST
        and min(h, w) > 1  # otherwise most taps only see zeros, which ATen skips
    )


def conv3x3(x: Tensor, weight: Tensor) -> Tensor:
    """conv2d(x, weight, padding=1); under autocast as torch's.

    Args:
        x: [B, C, H, W], floating point, any memory format.
        weight: [O, C, 3, 3], of x's dtype and device.

    Returns:
        [B, O, H, W]. In float32 on a CPU differentiable once; without a C++ compiler, exported and under torch.func's
        transforms it is torch's convolution.

    Raises:
        ValueError: the shapes do not fit together.
    """
    if x.ndim != 4 or weight.ndim != 4 or tuple(weight.shape[1:]) != (x.shape[1], 3, 3):
        raise ValueError(
            f"conv3x3 expects x [B, C, H, W] and weight [O, C, 3, 3]; got {list(x.shape)} and {list(weight.shape)}"
        )
    if not is_taken_apart() and fits(x, weight) and provider("conv3x3", x) == "native":
        return _forward(x, weight)
    return conv3x3_ref(x, weight)
