"""Convolution, bias and ReLU: y = max(conv(x, weight) + bias, 0), stride 1, zero padding.

On GPUs one cuDNN kernel does all three where cuDNN has a right one, and otherwise one Triton kernel adds bias and ReLU
to the convolution's result; `conv_relu_forms` has the forms, and chooses by trial. Each pass over the result that is
saved is its size twice: for conv1_2 of VGG-19 on 128 images of 64x64 in bfloat16 134 MB, as much as the convolution
itself moves.

On CPUs 3x3 filters that are frozen run by Winograd's algorithm, in C++ compiled on the machine; see `conv_relu_native`.

Layout: x and y [B, C, H, W] in channels_last, or what `dispatch.map_format` says. dtypes: float32 from compute
capability 7.0, float16 from 7.0, bfloat16 from 8.0. Everything else runs ATen's convolution and ReLU, which a compiler
may fuse with other operations.

The backward pass needs x, weight and y: the gradient of ReLU only depends on where y is zero. The C++ code has no
gradient of the weight, and needs no x.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from . import conv_relu_forms as forms
from . import conv_relu_native as native
from .cost import Cost
from .dispatch import is_taken_apart, map_format, provider


def conv_relu_ref(x: Tensor, weight: Tensor, bias: Tensor, padding: int) -> Tensor:
    """The specification of `conv_relu`: one product for each tap of the filter, in float64."""
    x, weight = F.pad(x.double(), (padding,) * 4), weight.double()
    kernel_h, kernel_w = weight.shape[2:]
    h, w = x.shape[2] - kernel_h + 1, x.shape[3] - kernel_w + 1
    y = bias.double().view(1, -1, 1, 1).expand(x.shape[0], -1, h, w)
    for i in range(kernel_h):
        for j in range(kernel_w):
            y = y + torch.einsum("bchw,oc->bohw", x[:, :, i : i + h, j : j + w], weight[:, :, i, j])
    return y.clamp_min(0)


# Inductor must not capture it in its own graphs: what a form keeps between calls would be in the graph's pool.
@torch.library.custom_op("fastvae::conv_relu", mutates_args=(), tags=(torch.Tag.cudagraph_unsafe,))
def _forward(x: Tensor, weight: Tensor, bias: Tensor, padding: int) -> Tensor:
    """The op, opaque to compilers, which would split the fused kernel."""
    if _runs_native(x, weight, bias, padding):
        return native.forward(x, weight, bias)
    runs = provider("conv_relu", x)
    if runs == "cudnn":
        form = forms.choose(x, weight, bias, padding)
    else:
        form = forms.one_more_pass if runs == "triton" else forms.aten
    return form(x, weight.to(x.dtype), bias.to(x.dtype), padding)


@_forward.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor, padding: int) -> Tensor:
    h, w = (x.shape[axis] + 2 * padding - weight.shape[axis] + 1 for axis in (2, 3))
    return x.new_empty((x.shape[0], weight.shape[0], h, w)).contiguous(memory_format=torch.channels_last)


def _save(ctx, inputs, output) -> None:
    x, weight, bias, ctx.padding = inputs
    ctx.is_native = _runs_native(x, weight, bias, ctx.padding)
    ctx.save_for_backward(None if ctx.is_native else x, weight, output)


def _backward(ctx, grad: Tensor):
    x, weight, y = ctx.saved_tensors
    if ctx.is_native:
        return _native_gradient(grad, y, weight), None, None, None
    wanted = list(ctx.needs_input_grad[:3])
    grad = torch.where(y <= 0, 0, grad)  # not y > 0, so that NaN stays NaN
    pads = [ctx.padding] * 2
    return *torch.ops.aten.convolution_backward(
        grad, x, weight, [weight.shape[0]], [1, 1], pads, [1, 1], False, [0, 0], 1, wanted
    ), None


_forward.register_autograd(_backward, setup_context=_save)


@torch.library.custom_op("fastvae::conv_relu_gradient", mutates_args=())
def _native_gradient(grad: Tensor, y: Tensor, weight: Tensor) -> Tensor:
    """The gradient of x in C++, opaque to compilers."""
    return native.gradient(grad, y, weight)


@_native_gradient.register_fake
def _(grad: Tensor, y: Tensor, weight: Tensor) -> Tensor:
    b, _, h, w = y.shape
    return y.new_empty((b, weight.shape[1], h, w)).contiguous(memory_format=torch.channels_last)


def _runs_native(x: Tensor, weight: Tensor, bias: Tensor, padding: int) -> bool:
    return not bias.requires_grad and native.fits(x, weight, padding) and provider("conv_relu", x) == "native"


def conv_relu(x: Tensor, weight: Tensor, bias: Tensor, *, padding: int = 0) -> Tensor:
    """max(conv2d(x, weight, bias, padding=padding), 0), in one kernel if cuDNN has a right one.

    Under autocast its operands are cast as those of conv2d.

    Args:
        x: [B, C, H, W], floating point; copied to `dispatch.map_format` if it is not in that layout.
        weight: [O, C, h, w] of x's dtype and device. A CPU may keep a frozen one's transformed filters for further
            calls; they are made again after a change that torch counts, which one through `.data` or NumPy is not.
        bias: [O] of x's dtype and device.
        padding: zeros around x, on each side.

    Returns:
        [B, O, H + 2 padding - h + 1, W + 2 padding - w + 1] in that layout. Differentiable once. Exported and under
        torch.func's transforms it is torch's convolution and ReLU.

    Raises:
        ValueError: shapes, dtypes or devices do not fit together.
    """
    as_given = weight, bias
    if torch.is_autocast_enabled(x.device.type) and x.dtype != torch.float64:
        dtype = torch.get_autocast_dtype(x.device.type)
        x, weight, bias = x.to(dtype), weight.to(dtype), bias.to(dtype)
    _check(x, weight, bias, padding)
    x = x.contiguous(memory_format=map_format(x.device))
    if not is_taken_apart():
        if _runs_native(x, *as_given, padding):
            # Not the casts, for which the filters would be transformed in every call.
            return _forward(x, *as_given, padding)
        if provider("conv_relu", x) in ("cudnn", "triton"):
            return _forward(x, weight, bias, padding)
    # Not inside the op, so that a compiler sees it: on a CPU Inductor fuses bias, ReLU and what follows.
    return forms.aten(x, weight, bias, padding)


def conv_relu_gradient(grad: Tensor, x: Tensor, weight: Tensor, y: Tensor) -> Tensor:
    """The gradient of y = conv_relu(x, weight, bias, padding=1) with respect to x, for passes of one's own.

    Args:
        grad: [B, O, H, W], the gradient with respect to y.
        x: [B, C, H, W]; only its shape and layout matter.
        weight: [O, C, 3, 3], a constant.
        y: [B, O, H, W].

    Returns:
        [B, C, H, W]. Not differentiable.
    """
    if native.fits_gradient(y, weight) and provider("conv_relu", y) == "native":
        return _native_gradient(grad.to(y.dtype), y, weight)
    grad = torch.where(y <= 0, 0, grad)  # not y > 0, to propagate NaN
    x, weight = x.to(grad.dtype), weight.to(grad.dtype)  # autocast may have rounded the forward pass's inputs
    return torch.ops.aten.convolution_backward(
        grad, x, weight, None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1, [True, False, False]
    )[0]


def _check(x: Tensor, weight: Tensor, bias: Tensor, padding: int) -> None:
    if x.ndim != 4 or weight.ndim != 4 or weight.shape[1] != x.shape[1] or bias.shape != weight.shape[:1]:
        raise ValueError(
            "conv_relu expects x [B, C, H, W], weight [O, C, h, w] and bias [O]; "
            f"got {list(x.shape)}, {list(weight.shape)} and {list(bias.shape)}"
        )
    if not (x.dtype == weight.dtype == bias.dtype) or not x.is_floating_point():
        raise ValueError(
            f"conv_relu expects x, weight and bias of one floating-point dtype; got {x.dtype}, {weight.dtype} "
            f"and {bias.dtype}. Cast them, or run under torch.autocast."
        )
    if not (x.device == weight.device == bias.device):
        raise ValueError(
            f"conv_relu expects x, weight and bias on one device; got {x.device}, {weight.device} and {bias.device}"
        )
    if padding < 0 or any(x.shape[axis] + 2 * padding < weight.shape[axis] for axis in (2, 3)):
        raise ValueError(
            f"conv_relu expects a padded image no smaller than the filter; got {list(x.shape[2:])} with padding "
            f"{padding} and a filter of {list(weight.shape[2:])}"
        )


def cost(batch: int, inputs: int, outputs: int, size: tuple[int, int], kernel: int, dtype: torch.dtype) -> Cost:
    """The work of a forward call with padding that keeps the size, by the convolution's definition.

    Winograd's minimal filtering, by which `native` computes it on a CPU, has fewer products.

    Returns:
        Two flops for each product; x, weight, bias read once and y written once.
    """
    pixels = batch * size[0] * size[1]
    numbers = pixels * (inputs + outputs) + outputs * (inputs * kernel**2 + 1)
    return Cost(flops=2 * pixels * inputs * outputs * kernel**2, bytes=numbers * dtype.itemsize)
