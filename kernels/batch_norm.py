"""Batch normalisation in training, with the residual sum and the LeakyReLU that follow it.

For x of `batches` batches in one tensor, each with its own mean and variance over n = B H W values of a channel,

    x' = (x - mean) / sqrt(variance + eps)
    y  = act(x' weight + bias + residual),     act(u) = u if u > 0 else slope u

and with g = act'(u) dL/dy the gradient before the activation

    dL/dbias = sum g,   dL/dweight = sum g x',   dL/dresidual = g
    dL/dx    = weight / sqrt(variance + eps) (g - sum g / n - x' sum(g x') / n)

(Ioffe and Szegedy 2015, section 3). Both directions are one kernel of sums, which Triton runs in one launch, and an
elementwise pass in plain torch, which a compiler fuses with what surrounds it. Compiled from torch's own operations the
sums are two to four launches forward and three to five backward; a step of the VAE-WGAN has 33 normalisations.

Layout: [B, C, H, W] in channels_last. Sums are in float32 (float64 for float64 x). The backward pass needs x, and y if
there are an activation and a residual: without a residual the sign of u follows from x.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from .cost import Cost
from .dispatch import is_taken_apart, provider

# Of a tensor [batches, B, C, H, W].
_OVER = (1, 3, 4)


def batch_norm_ref(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    *,
    batches: int = 1,
    momentum: float = 0.1,
    eps: float = 1e-5,
    residual: Tensor | None = None,
    negative_slope: float | None = None,
) -> Tensor:
    """The specification of `batch_norm`: torch's own, one batch after the other."""
    parts = x.chunk(batches)
    y = torch.cat([F.batch_norm(p, running_mean, running_var, weight, bias, True, momentum, eps) for p in parts])
    y = y if residual is None else y + residual
    return y if negative_slope is None else F.leaky_relu(y, negative_slope)


# Running statistics change in the op, so it is not differentiable by itself: `_Normalise` is. Inductor must not capture
# either op in its own graphs: memory that outlives the call, the tickets, would be in the graph's pool.
@torch.library.custom_op(
    "fastvae::batch_norm_statistics",
    mutates_args=("running_mean", "running_var"),
    tags=(torch.Tag.cudagraph_unsafe,),
)
def _statistics(
    x: Tensor, running_mean: Tensor, running_var: Tensor, batches: int, momentum: float, eps: float
) -> Tensor:
    """[2, batches, C]: each batch's mean and 1 / sqrt(variance + eps)."""
    if provider("batch_norm", x) == "triton":
        from . import batch_norm_triton as triton

        return triton.statistics(x, running_mean, running_var, batches, momentum, eps)
    return _statistics_aten(x, running_mean, running_var, batches, momentum, eps)


@_statistics.register_fake
def _(x, running_mean, running_var, batches, momentum, eps):
    return x.new_empty((2, batches, x.shape[1]), dtype=_accumulator(x))


def _statistics_aten(
    x: Tensor, running_mean: Tensor, running_var: Tensor, batches: int, momentum: float, eps: float
) -> Tensor:
    x = x.unflatten(0, (batches, -1))
    variance, mean = torch.var_mean(x.to(_accumulator(x)), _OVER, correction=0)
    count = x.numel() // mean.numel()
    # running = (1 - m) running + m new, for one batch after the other; means and variances in one launch.
    running, kept = [running_mean, running_var], 1.0
    change = [0.0, 0.0]
    for new in zip(mean.flip(0), (variance * (count / (count - 1))).flip(0), strict=True):
        change = [c + momentum * kept * n for c, n in zip(change, new, strict=True)]
        kept *= 1 - momentum
    torch._foreach_mul_(running, kept)
    torch._foreach_add_(running, change)
    return torch.stack((mean, torch.rsqrt(variance + eps)))


@torch.library.custom_op("fastvae::batch_norm_sums", mutates_args=(), tags=(torch.Tag.cudagraph_unsafe,))
def _sums(
    grad: Tensor,
    x: Tensor,
    y: Tensor | None,
    statistics: Tensor,
    weight: Tensor,
    bias: Tensor,
    negative_slope: float | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """[2, batches, C], each batch's sum of g and of g x'; dL/dweight and dL/dbias [C], their sums over the batches."""
    if provider("batch_norm", x) == "triton":
        from . import batch_norm_triton as triton

        return triton.sums(grad, x, y, statistics, weight, bias, negative_slope)
    return _sums_aten(grad, x, y, statistics, weight, bias, negative_slope)


@_sums.register_fake
def _(grad, x, y, statistics, weight, bias, negative_slope):
    return torch.empty_like(statistics), torch.empty_like(weight), torch.empty_like(bias)


def _sums_aten(
    grad: Tensor,
    x: Tensor,
    y: Tensor | None,
    statistics: Tensor,
    weight: Tensor,
    bias: Tensor,
    negative_slope: float | None,
) -> tuple[Tensor, Tensor, Tensor]:
    g, normalised = _before_activation(grad, x, y, statistics, weight, bias, negative_slope)
    total, along = g.sum(_OVER), (g * normalised).sum(_OVER)
    first, *others = [[along[i], total[i]] for i in range(len(total))]
    for other in others:
        first = torch._foreach_add(first, other)  # one launch
    dweight, dbias = (t.to(weight.dtype) for t in first)
    return torch.stack((total, along)), dweight, dbias


def _before_activation(
    grad: Tensor,
    x: Tensor,
    y: Tensor | None,
    statistics: Tensor,
    weight: Tensor,
    bias: Tensor,
    negative_slope: float | None,
) -> tuple[Tensor, Tensor]:
    """g and x' as [batches, B, C, H, W], in the statistics' dtype."""
    mean, inverse = _per_channel(statistics)
    grad, x = (t.unflatten(0, (len(mean), -1)).to(statistics.dtype) for t in (grad, x))
    normalised = (x - mean) * inverse
    if negative_slope is None:
        return grad, normalised
    positive = normalised * weight[:, None, None] + bias[:, None, None] > 0 if y is None else y.view_as(x) > 0
    return torch.where(positive, grad, grad * negative_slope), normalised


def _per_channel(statistics: Tensor) -> tuple[Tensor, Tensor]:
    """The two halves of [2, batches, C], for products with [batches, B, C, H, W]."""
    first, second = statistics[:, :, None, :, None, None]
    return first, second


def _accumulator(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)


class _Normalise(torch.autograd.Function):
    """y from x and the statistics; the backward pass differentiates through the statistics, too."""

    @staticmethod
    def forward(ctx, x, statistics, weight, bias, residual, negative_slope):
        mean, inverse = _per_channel(statistics)
        y = (x.unflatten(0, (len(mean), -1)).to(statistics.dtype) - mean) * (inverse * weight[:, None, None])
        y = (y + bias[:, None, None]).flatten(0, 1)
        if residual is not None:
            y = y + residual.to(y.dtype)
        if negative_slope is not None:
            y = F.leaky_relu(y, negative_slope)
        # torch 2.11 compiles a cast that changes nothing to one whose gradient is zero.
        y = y if y.dtype == x.dtype else y.to(x.dtype)
        keep_y = negative_slope is not None and residual is not None
        ctx.save_for_backward(x, y if keep_y else None, statistics, weight, bias)
        ctx.slope, ctx.dtype = negative_slope, None if residual is None else residual.dtype
        return y

    @staticmethod
    @once_differentiable  # the statistics are constants to autograd: a second derivative would lack their part
    def backward(ctx, grad):
        # Read once: torch.utils.checkpoint recomputes them at each access.
        x, y, statistics, weight, bias = ctx.saved_tensors
        if provider("batch_norm", x) == "triton":
            sums, dweight, dbias = _sums(grad, x, y, statistics, weight, bias, ctx.slope)
        else:  # not inside the op, so that a compiler sees it
            sums, dweight, dbias = _sums_aten(grad, x, y, statistics, weight, bias, ctx.slope)
        g, normalised = _before_activation(grad, x, y, statistics, weight, bias, ctx.slope)
        total, along = _per_channel(sums)
        _, inverse = _per_channel(statistics)
        count = x.numel() // statistics[0].numel()
        dx = weight[:, None, None] * inverse * (g - total / count - normalised * (along / count))
        residual = None if ctx.dtype is None else g.flatten(0, 1).to(ctx.dtype)
        return dx.flatten(0, 1).to(x.dtype), None, dweight, dbias, residual, None


def batch_norm(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    *,
    batches: int = 1,
    momentum: float = 0.1,
    eps: float = 1e-5,
    residual: Tensor | None = None,
    negative_slope: float | None = None,
) -> Tensor:
    """Batch normalisation by the statistics of x, plus a residual, then LeakyReLU; updates the running statistics.

    Source: Ioffe and Szegedy 2015, section 3; the formulas are at the top of this file.

    Args:
        x: [batches * B, C, H, W], floating point.
        weight, bias: [C], float32 (float64 for float64 x).
        running_mean, running_var: [C], as weight; changed in place as by torch: (1 - momentum) old + momentum new, with
            the unbiased variance, for one batch after the other.
        batches: how many batches x holds, each normalised by its own statistics.
        momentum: of the running statistics, in [0, 1].
        eps: added to the variance, >= 0.
        residual: of x's shape, added before the activation; or None.
        negative_slope: slope >= 0 of a LeakyReLU; None for no activation.

    Returns:
        A tensor of x's shape and dtype. Differentiable once, by reverse-mode autograd; exported and under torch.func's
        transforms it consists of torch's own operations. On a GPU two calls with the same
        parameters must not run at the same time, as is so for running statistics in any case.

    Raises:
        ValueError: a shape or an option is not one of those above.
    """
    channels = x.shape[1] if x.ndim == 4 else -1
    sizes = [tuple(t.shape) for t in (weight, bias, running_mean, running_var)]
    if any(size != (channels,) for size in sizes):
        raise ValueError(
            f"batch_norm expects x [B, C, H, W] and four tensors [C]; got {list(x.shape)} and "
            f"{', '.join(str(list(size)) for size in sizes)}"
        )
    if batches < 1 or x.shape[0] % batches:
        raise ValueError(f"batch_norm expects as many images as {batches} equal batches hold; got {x.shape[0]}")
    if x.shape[0] * x.shape[2] * x.shape[3] <= batches:
        raise ValueError(f"batch_norm expects more than one value per channel in training; got {list(x.shape)}")
    if residual is not None and residual.shape != x.shape:
        raise ValueError(f"batch_norm expects a residual of x's shape {list(x.shape)}; got {list(residual.shape)}")
    if negative_slope is not None and not negative_slope >= 0:
        raise ValueError(f"batch_norm expects negative_slope >= 0 or None; got {negative_slope!r}")
    if not (isinstance(momentum, int | float) and 0 <= momentum <= 1):
        raise ValueError(f"batch_norm expects momentum in [0, 1]; got {momentum!r}")
    if not (isinstance(eps, int | float) and 0 <= eps < math.inf):
        raise ValueError(f"batch_norm expects eps >= 0; got {eps!r}")
    if is_taken_apart():
        options = {"batches": batches, "momentum": momentum, "eps": eps}
        options |= {"residual": residual, "negative_slope": negative_slope}
        return batch_norm_ref(x, weight, bias, running_mean, running_var, **options)
    by_triton = provider("batch_norm", x) == "triton"
    if by_triton:  # its kernels read maps and vectors in these layouts
        x, weight, bias = x.contiguous(memory_format=torch.channels_last), weight.contiguous(), bias.contiguous()
    with torch.no_grad():  # `_Normalise` differentiates through them
        if by_triton:
            used = running_mean.contiguous(), running_var.contiguous()
            found = _statistics(x.detach(), *used, batches, momentum, eps)
            for given, updated in zip((running_mean, running_var), used, strict=True):
                if not given.is_contiguous():
                    given.copy_(updated)
        else:
            found = _statistics_aten(x, running_mean, running_var, batches, momentum, eps)
    return _Normalise.apply(x, found, weight, bias, residual, negative_slope)


def cost(numel: int, channels: int, dtype: torch.dtype, *, residual: bool) -> Cost:
    """The minimum work of a forward and a backward call, for any implementation.

    Args:
        numel: elements of x.
        channels: C.
        dtype: of x.
        residual: whether there is one.

    Returns:
        Forward, x is read twice and y written; backward x and dL/dy are read twice and dL/dx written; a residual is
        read once, y twice again, and its gradient written. About 8 flops an element forward and 16 backward.
    """
    passes = 8 + 4 * residual
    return Cost(flops=24 * numel, bytes=passes * numel * dtype.itemsize + 32 * channels)
