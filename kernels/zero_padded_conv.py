"""Convolution with trained filters and a border of one zero: 3x3 at stride 1, or 4x4 at stride 2. No bias.

Encoder and critic spend most of a training step in it. On a CPU in float32, in training, result and both gradients are
computed by Winograd's algorithm in C++ compiled on the machine, see `winograd`; the filters are transformed in every
call, since they change with every step. Everything else is torch's convolution.

Layout: x and y [B, C, H, W] in channels_last. The backward pass needs x and the weight.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from . import winograd
from .dispatch import is_taken_apart, provider
from .layout import channels_last

_KERNEL_AT_STRIDE = {1: 3, 2: 4}


def zero_padded_conv2d_ref(x: Tensor, weight: Tensor, stride: int = 1) -> Tensor:
    """The specification of `zero_padded_conv2d`."""
    return F.conv2d(x, weight, stride=stride, padding=1)


# Opaque to compilers, which cannot look into C++.
@torch.library.custom_op("fastvae::zero_padded_conv2d", mutates_args=())
def _forward(x: Tensor, weight: Tensor, stride: int) -> Tensor:
    tile = _tile(x, stride)
    filters = winograd.transformed(weight, tile, backward=False)
    return winograd.convolve(x, filters, len(weight), tile, stride=stride)


@_forward.register_fake
def _(x: Tensor, weight: Tensor, stride: int) -> Tensor:
    b, _, h, w = x.shape
    y = x.new_empty((b, len(weight), h // stride, w // stride))
    return y.contiguous(memory_format=torch.channels_last)


@torch.library.custom_op("fastvae::zero_padded_conv2d_backward", mutates_args=())
def _gradients(
    grad: Tensor, x: Tensor, weight: Tensor, stride: int, of_x: bool, of_weight: bool
) -> tuple[Tensor, Tensor]:
    """dL/dx and dL/dweight from dL/dy; an empty tensor for what is not wanted."""
    dx, dw = grad.new_empty(0), grad.new_empty(0)
    grad = channels_last(grad)  # once for both
    tile = _tile(x, stride)
    if of_x:
        dx = winograd.data_gradient(grad, weight, tile, stride=stride)
    if of_weight:
        dw = winograd.weight_gradient(x, grad, weight, tile, stride=stride)
    return dx, dw


@_gradients.register_fake
def _(grad: Tensor, x: Tensor, weight: Tensor, stride: int, of_x: bool, of_weight: bool) -> tuple[Tensor, Tensor]:
    dx = torch.empty_like(x, memory_format=torch.channels_last) if of_x else grad.new_empty(0)
    return dx, torch.empty_like(weight) if of_weight else grad.new_empty(0)


def _tile(x: Tensor, stride: int) -> int:
    return winograd.tile_for(x.shape[2] // stride, x.shape[3] // stride, stride)


def _save(ctx, inputs, output) -> None:
    x, weight, ctx.stride = inputs
    ctx.save_for_backward(x, weight)


def _backward(ctx, grad: Tensor):
    x, weight = ctx.saved_tensors
    wanted = ctx.needs_input_grad[:2]
    found = _gradients(grad, x, weight, ctx.stride, *wanted)
    return *(gradient if wants else None for gradient, wants in zip(found, wanted, strict=True)), None


_forward.register_autograd(_backward, setup_context=_save)


def fits(x: Tensor, weight: Tensor, stride: int) -> bool:
    """Whether the C++ code computes such a call: on a CPU in float32, in training, and large enough to gain by it."""
    if not (x.device.type == weight.device.type == "cpu" and x.dtype == weight.dtype == torch.float32):
        return False  # first, or a compiler would distinguish odd and even sizes on a GPU
    b, c, h, w = x.shape
    if h % stride or w % stride:
        return False
    h, w = h // stride, w // stride
    return (
        not torch.is_autocast_enabled("cpu")
        and torch.is_grad_enabled()
        and (x.requires_grad or weight.requires_grad)
        and min(h, w) > 1  # otherwise most taps only see zeros, which ATen skips
        and winograd.gains(b, c, len(weight), h, w, stride)
    )


def zero_padded_conv2d(x: Tensor, weight: Tensor, stride: int = 1) -> Tensor:
    """conv2d(x, weight, stride=stride, padding=1); under autocast as torch's.

    Args:
        x: [B, C, H, W], floating point, any memory format.
        weight: [O, C, 3, 3] at stride 1, [O, C, 4, 4] at stride 2, of x's dtype and device.
        stride: 1 or 2.

    Returns:
        [B, O, H / stride, W / stride], rounded down. In float32 on a CPU differentiable once, by reverse-mode autograd:
        a gradient penalty, which differentiates twice, torch.autograd.forward_ad and compiled transforms of torch.func
        need `with force("aten", op="zero_padded_conv2d")`. Without a C++ compiler, exported and under torch.func's
        transforms it is torch's convolution.

    Raises:
        ValueError: the shapes do not fit together.
    """
    if torch.jit.is_tracing():
        return zero_padded_conv2d_ref(x, weight, stride)  # sizes are tensors, and comparing them would warn
    kernel = _KERNEL_AT_STRIDE.get(stride)
    if kernel is None or x.ndim != 4 or weight.ndim != 4 or tuple(weight.shape[1:]) != (x.shape[1], kernel, kernel):
        raise ValueError(
            "zero_padded_conv2d expects x [B, C, H, W] and weight [O, C, 3, 3] at stride 1 or [O, C, 4, 4] at stride "
            f"2; got {list(x.shape)} and {list(weight.shape)} at stride {stride}"
        )
    if not is_taken_apart() and fits(x, weight, stride) and provider("zero_padded_conv2d", x) == "native":
        return _forward(x, weight, stride)
    return zero_padded_conv2d_ref(x, weight, stride)
