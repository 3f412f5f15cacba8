"""Real and generated images through the frozen layers in one batch, with a gradient only for the generated ones.

    y_l = max(W_l y_{l-1} + b_l, 0), poolings between          forward, 2B images in each kernel
    g_{l-1} = W_l^T [y_l > 0] (g_l + dL/dtap_l)                backward, B images, data gradients only

Autograd would also save the real half's maps, and 8 bytes for the position of every maximum. Here only the generated
half's ReLU outputs and pooled maps are saved, which the forward pass writes in any case. They are views of the batches:
nothing is copied, but the real half stays in memory with them. For 64 pairs of 64x64 images that is 0.7 GB in float32.
"""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from fastvae.kernels.conv_relu import conv_relu, conv_relu_gradient
from fastvae.kernels.dispatch import map_format
from fastvae.kernels.layout import with_channels

# A layer: a 3x3 convolution with its ReLU, the same with a tap at its output, or a 2x2 max pooling.
Layer = Literal["conv", "tap", "pool"]


def forward_pair(
    layers: Sequence[Layer], parameters: Sequence[Tensor], x: Tensor, fake_x: Tensor
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """The taps of both sides.

    Args:
        layers: in order, starting at the images.
        parameters: weight, bias, weight, bias, ... of the convolutions; treated as constants. The first weight may have
            more input channels than `x`, see `with_channels`.
        x, fake_x: [B, 3, H, W], the first convolution's input.

    Returns:
        One map [B, C, h, w] per tap of `x`, constants, and as many of `fake_x`, differentiable once in it.
    """
    maps = _Pair.apply(tuple(layers), x.detach(), fake_x, *(p.detach() for p in parameters))
    return maps[: len(maps) // 2], maps[len(maps) // 2 :]


class _Pair(torch.autograd.Function):
    @staticmethod
    def forward(ctx, layers: tuple[Layer, ...], x: Tensor, fake_x: Tensor, *parameters: Tensor):
        count, dtype = x.shape[0], parameters[0].dtype
        # Concatenated in memory order, or Inductor concatenates in the other order and transposes the result.
        sides = (with_channels(side.to(dtype), parameters[0].shape[1]) for side in (x, fake_x))
        y = torch.cat([side.permute(0, 2, 3, 1) for side in sides]).permute(0, 3, 1, 2)
        y = y.contiguous(memory_format=map_format(y.device))  # its half also decides the layout of a gradient
        convs = iter(zip(parameters[::2], parameters[1::2], strict=True))
        maps, taps = [y[count:]], []
        for layer in layers:
            if layer == "pool":
                y = F.max_pool2d(y, 2)
            else:
                weight, bias = next(convs)
                y = conv_relu(y, weight, bias, padding=1)
            if layer == "tap":
                taps.append(y)
            maps.append(y[count:])
        ctx.layers, ctx.depth, ctx.colours = layers, len(maps), x.shape[1]
        if not torch.compiler.is_compiling():  # which knows no such setting, and writes no zeros that nobody reads
            ctx.set_materialize_grads(False)
        ctx.save_for_backward(*maps, *parameters[::2])
        features = tuple(tap[:count] for tap in taps)
        ctx.mark_non_differentiable(*features)
        return *features, *(tap[count:] for tap in taps)

    @staticmethod
    @once_differentiable
    def backward(ctx, *gradients: Tensor):
        saved = ctx.saved_tensors  # read once: under torch.utils.checkpoint each access recomputes them
        maps, weights = list(saved[: ctx.depth]), list(saved[ctx.depth :])
        from_taps = list(gradients[len(gradients) // 2 :])
        g = None
        for layer in reversed(ctx.layers):
            y, weight = maps.pop(), None if layer == "pool" else weights.pop()
            if layer == "tap" and (of_tap := from_taps.pop()) is not None:
                g = of_tap if g is None else g + of_tap
            if g is None:  # of a tap that the loss does not use; nor one deeper than it
                continue
            g = max_pool2d_backward(g, maps[-1], y) if weight is None else conv_relu_gradient(g, maps[-1], weight, y)
        return None, None, None if g is None else g[:, : ctx.colours], *[None] * (len(saved) - ctx.depth) * 2


def max_pool2d_backward(grad: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Gradient of y = max_pool2d(x, 2) with respect to x, correct where x > 0; the ReLU below masks the rest.

    As in torch it goes to the first maximum of each window, and to a NaN, which counts as the maximum, so that NaN
    gradients propagate. Rows and columns that no window covers get zero.
    """
    if grad.is_cuda and map_format(grad.device) == torch.channels_last:
        return _max_pool2d_backward_by_comparison(grad, x, y)
    # Recomputes the positions: on a CPU faster than comparing, compiled or not; on GPUs without a compiler, too, which
    # would compare in 28 passes.
    _, positions = torch.ops.aten.max_pool2d_with_indices(x, [2, 2], [2, 2])
    return torch.ops.aten.max_pool2d_with_indices_backward(grad, x, [2, 2], [2, 2], [0, 0], [1, 1], False, positions)


def _max_pool2d_backward_by_comparison(grad: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Compiles to one kernel that reads x, y and the gradient once and writes channels_last."""
    h, w = y.shape[2:]
    height, width = x.shape[2:]
    grad, x, y = (t.permute(0, 2, 3, 1) for t in (grad, x, y))  # the order in memory
    # A zero gradient needs no position. This also makes the comparisons depend on the gradient; otherwise AOTAutograd
    # would move them to the forward pass as separate kernels, since their results are smaller than x.
    y = torch.where((grad == 0) | (y <= 0), -1, y)
    x = x[:, : 2 * h, : 2 * w]
    a, b, c = (_equal(x[:, i::2, j::2], y) for i, j in ((0, 0), (0, 1), (1, 0)))
    # Axes for rows and columns of each window, [B, h, 2, w, 2, C]. Skips a maximum after an equal one.
    row, column = (torch.arange(2, device=x.device).view(shape) == 1 for shape in ((2, 1, 1, 1), (2, 1)))
    a, b, c, y, grad = (t[:, :, None, :, None] for t in (a, b, c, y, grad))
    before = (a & (row | column)) | (b & row) | (c & row & column)
    here = _equal(x.unflatten(2, (w, 2)).unflatten(1, (h, 2)), y) & ~before
    grad_x = torch.where(here, grad, 0).flatten(3, 4).flatten(1, 2)
    return F.pad(grad_x.permute(0, 3, 1, 2), (0, width - 2 * w, 0, height - 2 * h))


def _equal(x: Tensor, y: Tensor) -> Tensor:
    """Elementwise equality, with NaN equal to NaN."""
    return (x == y) | ((x != x) & (y != y))
