"""3x3 convolution with replication padding, optionally of the nearest-neighbour x2 upsampled input.

The decoder's layer: nearest x2, replication pad 1, conv 3x3 (Hou et al., section 3.2). Written out, every output
reads nine upsampled pixels of which several are the same input pixel. Along one axis, with taps w0 w1 w2,

    out[2i]     = w0 x[i-1] + (w1 + w2) x[i]
    out[2i + 1] = (w0 + w1) x[i] + w2 x[i+1]

so each of the four output parities is a 2x2 convolution of the input: 16/36 of the multiplications, and neither
the upsampled nor the padded large tensor is ever written. The borders agree, because clamping the upsampled index
and halving it is clamping the input's index. All four parities at once are one transposed convolution of stride 2
whose 4x4 kernel is the 3x3 kernel convolved with a 2x2 box of ones; both gradients inherit the saving.

Layout: [B, C, H, W], channels_last is fastest. The backward saves x and the weight.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def replicate_conv2d_ref(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    upsample: int = 1,
    negative_slope: float | None = None,
) -> Tensor:
    """The specification of `replicate_conv2d`: the plain composition of four torch calls."""
    if upsample == 2:
        x = F.interpolate(x, scale_factor=2, mode="nearest")
    y = F.conv2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), weight, bias)
    return y if negative_slope is None else F.leaky_relu(y, negative_slope)


def _pad_by_cat(x: Tensor) -> Tensor:
    # Not F.pad(mode="replicate"): compiled by Inductor for the CPU (torch 2.11 to 2.13) its backward is wrong.
    x = torch.cat((x[..., :1], x, x[..., -1:]), dim=-1)
    return torch.cat((x[..., :1, :], x, x[..., -1:, :]), dim=-2)


def _upsampling_kernel(weight: Tensor) -> Tensor:
    """[O, I, 3, 3] convolution weight -> [I, O, 4, 4] weight of the equal transposed convolution of stride 2.

    The taps are summed in the weight's own precision, float32 under autocast, before any rounding to bfloat16.
    """
    box = F.pad(weight, (1, 1, 1, 1))
    box = box[..., :-1, :] + box[..., 1:, :]
    box = box[..., :-1] + box[..., 1:]
    # A transposed convolution scatters where a convolution gathers, so the kernel turns by 180 degrees.
    return box.flip(2, 3).transpose(0, 1)


def replicate_conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    upsample: int = 1,
    negative_slope: float | None = None,
) -> Tensor:
    """3x3 convolution with replication padding 1, of x or of its nearest-neighbour x2 upsampling.

    Source: Hou et al., section 3.2; the identity for `upsample=2` is derived at the top of this file.

    Args:
        x: [B, C, H, W], floating point, any memory format.
        weight: [O, C, 3, 3]. May be float32 beside a half-precision x under autocast.
        bias: [O] or None.
        upsample: 1, or 2 for nearest-neighbour upsampling before the padding.
        negative_slope: slope of a LeakyReLU applied to the result; None for no activation.

    Returns:
        [B, O, upsample * H, upsample * W].

    Raises:
        ValueError: a shape or an option is not one of those above.
    """
    _check_arguments(x, weight, bias, upsample)
    padded = _pad_by_cat(x)
    if upsample == 1:
        y = F.conv2d(padded, weight, bias)
    else:
        y = F.conv_transpose2d(padded, _upsampling_kernel(weight), bias, stride=2, padding=3)
    return y if negative_slope is None else F.leaky_relu(y, negative_slope)


def _check_arguments(x: Tensor, weight: Tensor, bias: Tensor | None, upsample: int) -> None:
    if x.dim() != 4 or not x.is_floating_point():
        raise ValueError(
            f"replicate_conv2d expects x as [B, C, H, W] of floating point; got {list(x.shape)} of {x.dtype}"
        )
    if weight.dim() != 4 or tuple(weight.shape[1:]) != (x.shape[1], 3, 3):
        raise ValueError(
            f"replicate_conv2d expects a weight [O, {x.shape[1]}, 3, 3] for x {list(x.shape)}; got {list(weight.shape)}"
        )
    if bias is not None and tuple(bias.shape) != (weight.shape[0],):
        raise ValueError(f"replicate_conv2d expects a bias [{weight.shape[0]}]; got {list(bias.shape)}")
    if upsample not in (1, 2):
        raise ValueError(f"replicate_conv2d expects upsample=1 or upsample=2; got {upsample!r}")
    if x.shape[2] == 0 or x.shape[3] == 0:
        raise ValueError(f"replicate_conv2d cannot replicate the border of an empty map {list(x.shape)}")
