"""3x3 convolution with replication padding, optionally after nearest-neighbour x2 upsampling.

The decoder's layer: nearest x2, replication pad 1, conv 3x3 (Hou et al., section 3.2). Written out, each output reads
nine upsampled pixels, several of which are the same input pixel. Along one axis, with taps w0 w1 w2,

    out[2i]     = w0 x[i-1] + (w1 + w2) x[i]
    out[2i + 1] = (w0 + w1) x[i] + w2 x[i+1]

so each of the four output parities is a 2x2 convolution of the input, with 16/36 of the multiplications, and neither
the upsampled nor the padded large tensor is ever written. The borders agree, because clamping the upsampled index and
then halving it is the same as clamping the input's index. All four parities together are one transposed convolution of
stride 2 whose 4x4 kernel is the 3x3 kernel convolved with a 2x2 box of ones; both gradients have the same saving.

Layout: [B, C, H, W]; channels_last is fastest, and is the result's layout with Triton. The backward pass needs x and
the weight, and y if there is an activation. Each direction moves at least x, y and the weight once and does 2 * 9 * C
flops per output, 2 * 4 * C with `upsample=2`; see `cost`.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from . import replicate_conv_aten as aten
from . import replicate_conv_native as native
from .cost import Cost
from .dispatch import SOURCES, is_plain_call, is_taken_apart, provider
from .packed_weight import pack_weights, packed_shape
from .traceable_op import traceable_op


def replicate_conv2d_ref(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    upsample: int = 1,
    residual: Tensor | None = None,
    negative_slope: float | None = None,
) -> Tensor:
    """The specification of `replicate_conv2d`: a few plain torch calls."""
    if upsample == 2:
        x = F.interpolate(x, scale_factor=2, mode="nearest")
    y = F.conv2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), weight, bias)
    y = y if residual is None else y + residual
    return y if negative_slope is None else F.leaky_relu(y, negative_slope)


# Registered with torch, so that autograd and torch.compile treat each as one operation.


@traceable_op("fastvae::replicate_conv2d")
def _forward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    packed: Tensor | None,
    residual: Tensor | None,
    upsample: int,
    negative_slope: float | None,
    sources: str,
) -> Tensor:
    if provider("replicate_conv2d", x) == "triton":
        from . import replicate_conv_launch as triton

        if tile := triton.choose_tile("forward", x.shape, weight, upsample, x):
            return triton.forward(x, weight, bias, packed, residual, upsample, negative_slope, tile)[0]
    return _without_triton(x, weight, bias, residual, upsample, negative_slope)


@traceable_op("fastvae::replicate_conv2d_with_sums")
def _forward_with_sums(
    x: Tensor, weight: Tensor, bias: Tensor | None, packed: Tensor | None, upsample: int, sources: str
) -> tuple[Tensor, Tensor]:
    if provider("replicate_conv2d", x) == "triton":
        from . import replicate_conv_launch as triton

        if tile := triton.choose_tile("forward", x.shape, weight, upsample, x):
            return triton.forward(x, weight, bias, packed, None, upsample, None, tile, sums=True)
    y = _without_triton(x, weight, bias, None, upsample, None)
    return y, _sums(y)


def _without_triton(
    x: Tensor, weight: Tensor, bias: Tensor | None, residual: Tensor | None, upsample: int, slope: float | None
) -> Tensor:
    if native.runs(x, weight, upsample):
        return aten.finish(x, native.forward(x, weight), bias, residual, slope)
    return aten.forward(x, weight, bias, residual, upsample, slope)


def _sums(y: Tensor) -> Tensor:
    seen = y.to(torch.float64 if y.dtype == torch.float64 else torch.float32)
    return torch.stack((seen.sum((0, 2, 3)), seen.square().sum((0, 2, 3))))


# One opaque operation for the complete backward pass: if Inductor saw each kernel, it would write the incoming gradient
# to memory again for each of them.
@torch.library.custom_op("fastvae::replicate_conv2d_backward", mutates_args=())
def _gradients(
    grad: Tensor,
    y: Tensor | None,
    x: Tensor,
    weight: Tensor,
    packed: Tensor | None,
    upsample: int,
    negative_slope: float | None,
    wanted: Sequence[bool],
) -> tuple[Tensor, Tensor, Tensor]:
    """dL/dx, dL/dweight and dL/dbias from dL/dy; an empty tensor for each that is not wanted."""
    of_x, of_weight, of_bias = wanted
    dx, dw, db = grad.new_empty(0), weight.new_empty(0), weight.new_empty(0)
    if provider("replicate_conv2d", grad) == "triton":
        grad = grad.contiguous(memory_format=torch.channels_last)  # once for all kernels
    # A backward pass under autocast must not change the dtypes that the fake below returns.
    with torch.autocast(grad.device.type, enabled=False):
        if of_x:
            dx = _data_gradient(grad, y, weight, packed, upsample, negative_slope)
        if of_weight or of_bias:
            dw, db = _weight_gradient(grad, y, x, weight, of_bias, upsample, negative_slope)
    return dx, dw, db


@_gradients.register_fake
def _(grad, y, x, weight, packed, upsample, negative_slope, wanted):
    of_x, of_weight, of_bias = wanted
    last = provider("replicate_conv2d", grad) == "triton" or aten.is_channels_last(grad)
    dx = torch.empty_like(x, memory_format=torch.channels_last if last else torch.contiguous_format)
    dw, db = torch.empty_like(weight), weight.new_empty(weight.shape[0])
    return (
        dx if of_x else grad.new_empty(0),
        dw if of_weight or of_bias else weight.new_empty(0),
        db if of_bias else weight.new_empty(0),
    )


def _data_gradient(
    grad: Tensor, y: Tensor | None, weight: Tensor, packed: Tensor | None, upsample: int, slope: float | None
) -> Tensor:
    if provider("replicate_conv2d", grad) == "triton":
        from . import replicate_conv_launch as triton

        batch, _, h, w = grad.shape
        x_shape = torch.Size((batch, weight.shape[1], h // upsample, w // upsample))
        if tile := triton.choose_tile("data_gradient", x_shape, weight, upsample, grad):
            return triton.data_gradient(grad, y, weight, packed, upsample, slope, tile)
    if native.runs(grad, weight, upsample):
        return aten.laid_out_as(grad, native.data_gradient(aten.before_activation(grad, y, slope), weight))
    return aten.data_gradient(grad, y, weight, upsample, slope)


def _weight_gradient(
    grad: Tensor, y: Tensor | None, x: Tensor, weight: Tensor, with_bias: bool, upsample: int, slope: float | None
) -> tuple[Tensor, Tensor]:
    if provider("replicate_conv2d", grad) == "triton":
        from . import replicate_conv_launch as triton

        if tile := triton.choose_tile("weight_gradient", x.shape, weight, upsample, grad):
            return triton.weight_gradient(grad, y, x, weight, with_bias, upsample, slope, tile)
    if native.runs(x, weight, upsample):
        grad = aten.before_activation(grad, y, slope)
        dw = native.weight_gradient(grad, x, weight)
        return dw, grad.sum((0, 2, 3)) if with_bias else weight.new_empty(0)
    return aten.weight_gradient(grad, y, x, weight, with_bias, upsample, slope)


def _save(ctx, inputs, output) -> None:
    x, weight, bias, packed, _, ctx.upsample, ctx.slope, _ = inputs
    ctx.save_for_backward(x, weight, packed, None if ctx.slope is None else output)
    ctx.with_bias = bias is not None


def _save_with_sums(ctx, inputs, output) -> None:
    x, weight, bias, packed, ctx.upsample, _ = inputs
    ctx.slope = None
    ctx.save_for_backward(x, weight, packed, output[0])
    ctx.with_bias = bias is not None


def _differentiate(
    ctx, grad: Tensor, y: Tensor | None, x: Tensor, weight: Tensor, packed: Tensor | None
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    wanted = [*ctx.needs_input_grad[:2], ctx.with_bias and ctx.needs_input_grad[2]]
    found = _gradients(grad, y, x, weight, packed, ctx.upsample, ctx.slope, wanted)
    return tuple(gradient if wants else None for gradient, wants in zip(found, wanted, strict=True))


# Saved tensors are accessed once, since each access under torch.utils.checkpoint runs the forward pass again.


def _backward(ctx, grad: Tensor):
    x, weight, packed, y = ctx.saved_tensors
    of_residual = aten.before_activation(grad, y, ctx.slope) if ctx.needs_input_grad[4] else None
    return *_differentiate(ctx, grad, y, x, weight, packed), None, of_residual, None, None, None


def _backward_with_sums(ctx, grad: Tensor, grad_sums: Tensor):
    x, weight, packed, y = ctx.saved_tensors
    # d/dy of s1 . sum(y) + s2 . sum(y^2) is s1 + 2 s2 y, per channel.
    s1, s2 = (s.view(1, -1, 1, 1) for s in grad_sums)
    total = (grad.to(grad_sums.dtype) + s1 + 2 * s2 * y.to(grad_sums.dtype)).to(grad.dtype)
    return *_differentiate(ctx, total, None, x, weight, packed), None, None, None


_forward.register_autograd(_backward, setup_context=_save)
_forward_with_sums.register_autograd(_backward_with_sums, setup_context=_save_with_sums)


def replicate_conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    upsample: int = 1,
    residual: Tensor | None = None,
    negative_slope: float | None = None,
    packed: Tensor | None = None,
) -> Tensor:
    """3x3 convolution with replication padding 1, of x or of x after nearest-neighbour x2 upsampling.

    Source: Hou et al., section 3.2; the identity for `upsample=2` is derived at the top of this file.

    Args:
        x: [B, C, H, W], floating point, any memory format; B may be 0. Under autocast it is cast as for torch's
            convolutions.
        weight: [O, C, 3, 3], of x's dtype. Under autocast pass float32: then the taps that `upsample=2` combines are
            summed before rounding, and Triton does not round the gradient (ATen computes it in x's dtype).
        bias: [O], of the weight's dtype, or None.
        upsample: 1, or 2 for nearest-neighbour upsampling before the padding.
        residual: [B, O, upsample * H, upsample * W], of x's dtype, any memory format: added to the result; or None.
        negative_slope: slope >= 0 of a LeakyReLU applied to the result, after the residual; None for no activation.
        packed: of `pack_weights` for this weight, upsampling and x's dtype (under autocast the one that it casts to),
            which spares a call that Triton runs the packing; None to pack here, once for forward and backward. The
            gradient is the weight's all the same.

    Returns:
        [B, O, upsample * H, upsample * W]. Differentiable once, by reverse-mode autograd. torch.export, ONNX export,
        torch.jit.trace and torch.func's transforms use the plain torch calls of `replicate_conv2d_ref`. A compiled
        transform, such as torch.compile(torch.func.grad(f)), raises.

    Raises:
        ValueError: a shape, a dtype or an option is not one of those above.
    """
    if negative_slope is not None and not negative_slope >= 0:
        raise ValueError(
            f"replicate_conv2d expects negative_slope >= 0 or None; got {negative_slope!r}: below 0 the backward pass "
            "could not tell the sign of the input from the output"
        )
    x = _checked(x, weight, bias, upsample)
    residual = None if residual is None else _checked_residual(residual, x, weight, upsample)
    if is_taken_apart():
        options = {"upsample": upsample, "residual": residual, "negative_slope": negative_slope}
        return replicate_conv2d_ref(x, weight, bias, **options)
    packed = _packed(x, weight, packed, upsample)
    if is_plain_call("replicate_conv2d", x, weight, bias, residual):
        return aten.forward(x, weight, bias, residual, upsample, negative_slope)
    return _forward(x, weight, bias, packed, residual, upsample, negative_slope, SOURCES)


def replicate_conv2d_with_sums(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, *, upsample: int = 1, packed: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """`replicate_conv2d`, and the sums for a batch normalisation after it, without reading the result again.

    Arguments and errors are those of `replicate_conv2d`.

    Returns:
        y [B, O, upsample * H, upsample * W], and [2, O] in float32 (float64 for float64 x): for each channel the sum
        of y, as rounded, and of its square over batch and map. With n = B * H * W * upsample^2 the mean is
        sums[0] / n and the variance sums[1] / n - mean^2.
    """
    x = _checked(x, weight, bias, upsample)
    if is_taken_apart():
        y = replicate_conv2d_ref(x, weight, bias, upsample=upsample)
        return y, _sums(y)
    return _forward_with_sums(x, weight, bias, _packed(x, weight, packed, upsample), upsample, SOURCES)


def _packed(x: Tensor, weight: Tensor, packed: Tensor | None, upsample: int) -> Tensor | None:
    """The packed weight: checked if it was given, or packed now; None where ATen runs."""
    if packed is None:
        return pack_weights([weight], [upsample], x.dtype)[0]
    shape = packed_shape(weight, upsample)
    if tuple(packed.shape) != shape or packed.dtype != x.dtype or packed.device != x.device:
        raise ValueError(
            f"replicate_conv2d expects packed as pack_weights makes it, {list(shape)} of {x.dtype} on {x.device}; got "
            f"{list(packed.shape)} of {packed.dtype} on {packed.device}"
        )
    return packed


def _checked(x: Tensor, weight: Tensor, bias: Tensor | None, upsample: int) -> Tensor:
    """Returns x, cast if autocast is enabled; raises ValueError unless the arguments are consistent."""
    if torch.jit.is_tracing():
        return x  # sizes are tensors, and comparing them would warn
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
    if 0 in x.shape[1:] or weight.shape[0] == 0:
        raise ValueError(
            f"replicate_conv2d cannot replicate the border of an empty map, nor work without channels: "
            f"x {list(x.shape)}, weight {list(weight.shape)}"
        )
    if any(t is not None and t.device != x.device for t in (weight, bias)):
        raise ValueError(
            f"replicate_conv2d expects one device; got x on {x.device}, weight on {weight.device}"
            + (f", bias on {bias.device}" if bias is not None else "")
        )
    allowed = {x.dtype}
    kind = x.device.type  # autocast does not know "meta"
    if kind != "meta" and torch.is_autocast_enabled(kind) and x.dtype != torch.float64:
        x = x.to(torch.get_autocast_dtype(kind))
        allowed |= {x.dtype, torch.float32}
    if weight.dtype not in allowed or (bias is not None and bias.dtype != weight.dtype):
        raise ValueError(
            f"replicate_conv2d expects x, weight and bias of one dtype, or a float32 weight and bias under autocast; "
            f"got {x.dtype}, {weight.dtype}" + (f" and {bias.dtype}" if bias is not None else "")
        )
    return x


def _checked_residual(residual: Tensor, x: Tensor, weight: Tensor, upsample: int) -> Tensor:
    """Returns the residual, cast if autocast cast x; raises ValueError unless it can be added to the result."""
    if torch.jit.is_tracing():
        return residual
    batch, _, h, w = x.shape
    shape = (batch, weight.shape[0], upsample * h, upsample * w)
    kind = x.device.type
    if kind != "meta" and torch.is_autocast_enabled(kind) and residual.is_floating_point():
        residual = residual.to(x.dtype)
    if tuple(residual.shape) != shape or residual.dtype != x.dtype or residual.device != x.device:
        raise ValueError(
            f"replicate_conv2d expects a residual like its result, {list(shape)} of {x.dtype} on {x.device}; got "
            f"{list(residual.shape)} of {residual.dtype} on {residual.device}"
        )
    return residual


def cost(
    batch: int,
    in_channels: int,
    out_channels: int,
    height: int,
    width: int,
    *,
    upsample: int,
    dtype: torch.dtype,
    direction: str,
) -> Cost:
    """The minimum work of one direction of a call, for any implementation.

    Args:
        batch, in_channels, out_channels, height, width: of x, and O.
        upsample: 1 or 2.
        dtype: of x, y and the weight.
        direction: "forward", "data_gradient" or "weight_gradient"; each multiplies the same pairs of numbers.

    Returns:
        2 flops for each multiply-add that remains with the identity; x, y (or their gradients) and the weight moved
        once.
    """
    if direction not in ("forward", "data_gradient", "weight_gradient"):
        raise ValueError(f"expected forward, data_gradient or weight_gradient; got {direction!r}")
    outputs = batch * height * width * upsample**2 * out_channels
    inputs = batch * height * width * in_channels
    taps = 9 if upsample == 1 else 4
    moved = inputs + outputs + 9 * in_channels * out_channels
    return Cost(flops=2 * taps * in_channels * outputs, bytes=moved * dtype.itemsize)
