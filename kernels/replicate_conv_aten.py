"""`replicate_conv2d` in ATen: for CPUs, older GPUs and float64, both directions by the identity of `replicate_conv`.

On a CPU some calls run in C++ instead, see `replicate_conv_native`.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from .dispatch import map_format


def _pad(x: Tensor) -> Tensor:
    # torch's gradient of this is never used: compiled for the CPU (torch 2.11 to 2.13) it is wrong.
    return F.pad(x, (1, 1, 1, 1), mode="replicate")


def _fold_padding(padded: Tensor) -> Tensor:
    """The adjoint of the padding: adds the gradients of a border pixel's copies to the pixel itself."""
    for dim in (-1, -2):
        inner = padded.shape[dim] - 2
        first, last = padded.narrow(dim, 0, 1), padded.narrow(dim, inner + 1, 1)
        if inner == 1:
            padded = first + padded.narrow(dim, 1, 1) + last
        else:
            first, last = first + padded.narrow(dim, 1, 1), padded.narrow(dim, inner, 1) + last
            padded = torch.cat((first, padded.narrow(dim, 2, inner - 2), last), dim)
    return padded


# Pixels of a batch of maps before upsampling. With fewer, summing the taps on a CPU costs more than it saves: one 4x4
# map of 256 channels takes 0.6 ms upsampled and 2.2 ms with the sums; 1024 pixels of 64 channels 0.95 and 0.68 ms (two
# AVX2 cores).
_FEWEST_PIXELS = 256


def upsampling_kernel(weight: Tensor) -> Tensor:
    """[O, I, 3, 3] convolution weight -> [I, O, 4, 4] weight of the equivalent transposed convolution of stride 2.

    The taps are summed in the weight's precision, float32 under autocast, before any rounding to bfloat16.
    """
    box = F.pad(weight, (1, 1, 1, 1))
    box = box[..., :-1, :] + box[..., 1:, :]
    box = box[..., :-1] + box[..., 1:]
    # A transposed convolution scatters where a convolution gathers, so the kernel is rotated by 180 degrees.
    # On a CPU oneDNN takes twice as long for other layouts than channels_last with 256 to 128 channels.
    return box.flip(2, 3).transpose(0, 1).contiguous(memory_format=map_format(weight.device))


def _fold_upsampling_kernel(kernel: Tensor) -> Tensor:
    """The adjoint of `upsampling_kernel`."""
    box = kernel.transpose(0, 1).flip(2, 3)
    box = box[..., :-1, :] + box[..., 1:, :]
    return box[..., :-1] + box[..., 1:]


def forward(
    x: Tensor, weight: Tensor, bias: Tensor | None, residual: Tensor | None, upsample: int, slope: float | None
) -> Tensor:
    bias = None if bias is None else bias.to(x.dtype)
    if upsample == 1:
        y = F.conv2d(_pad(x), weight.to(x.dtype), bias)
    elif x.device.type == "cpu" and x.numel() < _FEWEST_PIXELS * x.shape[1]:
        y = F.conv2d(_pad(F.interpolate(x, scale_factor=2.0)), weight.to(x.dtype), bias)
    else:
        y = F.conv_transpose2d(_pad(x), upsampling_kernel(weight).to(x.dtype), bias, stride=2, padding=3)
    return finish(x, y, None, residual, slope)


def finish(x: Tensor, y: Tensor, bias: Tensor | None, residual: Tensor | None, slope: float | None) -> Tensor:
    """What follows the convolution y of x."""
    y = y if bias is None else y + bias.view(-1, 1, 1)
    y = y if residual is None else y + residual
    return laid_out_as(x, y if slope is None else F.leaky_relu(y, slope))


def data_gradient(grad: Tensor, y: Tensor | None, weight: Tensor, upsample: int, slope: float | None) -> Tensor:
    before = before_activation(grad, y, slope)
    if upsample == 1:
        padded = F.conv_transpose2d(before, weight.to(grad.dtype))
    else:
        padded = F.conv2d(before, upsampling_kernel(weight).to(grad.dtype), stride=2, padding=3)
    return laid_out_as(grad, _fold_padding(padded))


def weight_gradient(
    grad: Tensor, y: Tensor | None, x: Tensor, weight: Tensor, with_bias: bool, upsample: int, slope: float | None
) -> tuple[Tensor, Tensor]:
    grad, padded = before_activation(grad, y, slope), _pad(x)
    kernel = weight if upsample == 1 else upsampling_kernel(weight)
    _, dw, db = torch.ops.aten.convolution_backward(
        grad,
        padded,
        kernel.to(x.dtype),
        [weight.shape[0]],
        *([1, 1], [0, 0]) if upsample == 1 else ([2, 2], [3, 3]),
        [1, 1],
        upsample == 2,
        [0, 0],
        1,
        [False, True, with_bias],
    )
    dw = dw.to(weight.dtype)
    dw = torch.empty_like(weight).copy_(dw if upsample == 1 else _fold_upsampling_kernel(dw))
    return dw, db.to(weight.dtype) if with_bias else weight.new_empty(0)


def before_activation(grad: Tensor, y: Tensor | None, slope: float | None) -> Tensor:
    """The gradient before the LeakyReLU, whose output y has the sign of its input."""
    return grad if slope is None else torch.where(y > 0, grad, grad * slope)


def laid_out_as(x: Tensor, y: Tensor) -> Tensor:
    """y in x's memory format; a convolution's own choice differs between versions of torch."""
    return y.contiguous(memory_format=torch.channels_last if is_channels_last(x) else torch.contiguous_format)


def is_channels_last(x: Tensor) -> bool:
    return x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
