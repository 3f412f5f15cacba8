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

from .cost import Cost
from .dispatch import SOURCES, is_taken_apart, provider
from .packed_weight import pack_weights, packed_shape


def replicate_conv2d_ref(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    upsample: int = 1,
    negative_slope: float | None = None,
) -> Tensor:
    """The specification of `replicate_conv2d`: four plain torch calls."""
    if upsample == 2:
        x = F.interpolate(x, scale_factor=2, mode="nearest")
    y = F.conv2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), weight, bias)
    return y if negative_slope is None else F.leaky_relu(y, negative_slope)


# In ATen: for CPUs, older GPUs and float64.


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
    # channels_last: oneDNN takes twice as long for other layouts with 256 to 128 channels.
    return box.flip(2, 3).transpose(0, 1).contiguous(memory_format=torch.channels_last)


def _fold_upsampling_kernel(kernel: Tensor) -> Tensor:
    """The adjoint of `upsampling_kernel`."""
    box = kernel.transpose(0, 1).flip(2, 3)
    box = box[..., :-1, :] + box[..., 1:, :]
    return box[..., :-1] + box[..., 1:]


def _forward_aten(x: Tensor, weight: Tensor, bias: Tensor | None, upsample: int, slope: float | None) -> Tensor:
    bias = None if bias is None else bias.to(x.dtype)
    if upsample == 1:
        y = F.conv2d(_pad(x), weight.to(x.dtype), bias)
    elif x.device.type == "cpu" and x.numel() < _FEWEST_PIXELS * x.shape[1]:
        y = F.conv2d(_pad(F.interpolate(x, scale_factor=2.0)), weight.to(x.dtype), bias)
    else:
        y = F.conv_transpose2d(_pad(x), upsampling_kernel(weight).to(x.dtype), bias, stride=2, padding=3)
    return _laid_out_as(x, y if slope is None else F.leaky_relu(y, slope))


def _data_gradient_aten(grad: Tensor, y: Tensor | None, weight: Tensor, upsample: int, slope: float | None) -> Tensor:
    grad = _before_activation(grad, y, slope)
    if upsample == 1:
        padded = F.conv_transpose2d(grad, weight.to(grad.dtype))
    else:
        padded = F.conv2d(grad, upsampling_kernel(weight).to(grad.dtype), stride=2, padding=3)
    return _laid_out_as(grad, _fold_padding(padded))


def _weight_gradient_aten(
    grad: Tensor, y: Tensor | None, x: Tensor, weight: Tensor, with_bias: bool, upsample: int, slope: float | None
) -> tuple[Tensor, Tensor]:
    grad, padded = _before_activation(grad, y, slope), _pad(x)
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


def _before_activation(grad: Tensor, y: Tensor | None, slope: float | None) -> Tensor:
    """The gradient before the LeakyReLU, whose output y has the sign of its input."""
    return grad if slope is None else torch.where(y > 0, grad, grad * slope)


def _laid_out_as(x: Tensor, y: Tensor) -> Tensor:
    """y in x's memory format; a convolution's own choice differs between versions of torch."""
    return y.contiguous(memory_format=torch.channels_last if _is_channels_last(x) else torch.contiguous_format)


def _is_channels_last(x: Tensor) -> bool:
    return x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()


# Registered with torch, so that autograd and torch.compile treat each as one operation.


@torch.library.triton_op("fastvae::replicate_conv2d", mutates_args=())
def _forward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    packed: Tensor | None,
    upsample: int,
    negative_slope: float | None,
    sources: str,
) -> Tensor:
    if provider("replicate_conv2d", x) == "triton":
        from . import replicate_conv_launch as triton

        if tile := triton.choose_tile("forward", x.shape, weight, upsample, x):
            return triton.forward(x, weight, bias, packed, upsample, negative_slope, tile)[0]
    return _forward_aten(x, weight, bias, upsample, negative_slope)


@torch.library.triton_op("fastvae::replicate_conv2d_with_sums", mutates_args=())
def _forward_with_sums(
    x: Tensor, weight: Tensor, bias: Tensor | None, packed: Tensor | None, upsample: int, sources: str
) -> tuple[Tensor, Tensor]:
    if provider("replicate_conv2d", x) == "triton":
        from . import replicate_conv_launch as triton

        if tile := triton.choose_tile("forward", x.shape, weight, upsample, x):
            return triton.forward(x, weight, bias, packed, upsample, None, tile, sums=True)
    y = _forward_aten(x, weight, bias, upsample, None)
    return y, _sums(y)


def _sums(y: Tensor) -> Tensor:
    seen = y.to(torch.float64 if y.dtype == torch.float64 else torch.float32)
    return torch.stack((seen.sum((0, 2, 3)), seen.square().sum((0, 2, 3))))


# One opaque operation for the complete backward pass: in a triton_op Inductor sees each kernel, and writes the incoming
# gradient to memory again for each of them.
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
    last = provider("replicate_conv2d", grad) == "triton" or _is_channels_last(grad)
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
    return _data_gradient_aten(grad, y, weight, upsample, slope)


def _weight_gradient(
    grad: Tensor, y: Tensor | None, x: Tensor, weight: Tensor, with_bias: bool, upsample: int, slope: float | None
) -> tuple[Tensor, Tensor]:
    if provider("replicate_conv2d", grad) == "triton":
        from . import replicate_conv_launch as triton

        if tile := triton.choose_tile("weight_gradient", x.shape, weight, upsample, grad):
            return triton.weight_gradient(grad, y, x, weight, with_bias, upsample, slope, tile)
    return _weight_gradient_aten(grad, y, x, weight, with_bias, upsample, slope)


def _save(ctx, inputs, output) -> None:
    x, weight, bias, packed, ctx.upsample, *slope, _ = inputs
    ctx.slope = slope[0] if slope else None
    y = output[0] if isinstance(output, tuple) else output
    keep_y = ctx.slope is not None or isinstance(output, tuple)
    ctx.save_for_backward(x, weight, packed, y if keep_y else None)
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
    return *_differentiate(ctx, grad, y, x, weight, packed), None, None, None, None


def _backward_with_sums(ctx, grad: Tensor, grad_sums: Tensor):
    x, weight, packed, y = ctx.saved_tensors
    # d/dy of s1 . sum(y) + s2 . sum(y^2) is s1 + 2 s2 y, per channel.
    s1, s2 = (s.view(1, -1, 1, 1) for s in grad_sums)
    total = (grad.to(grad_sums.dtype) + s1 + 2 * s2 * y.to(grad_sums.dtype)).to(grad.dtype)
    return *_differentiate(ctx, total, None, x, weight, packed), None, None, None


_forward.register_autograd(_backward, setup_context=_save)
_forward_with_sums.register_autograd(_backward_with_sums, setup_context=_save)


def replicate_conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    upsample: int = 1,
    negative_slope: float | None = None,
    packed: Tensor | None = None,
) -> Tensor:
    """3x3 convolution with replication padding 1, of x or of x after nearest-neighbour x2 upsampling.

    Source: Hou et al., section 3.2; the identity for `upsample=2` is derived at the top of this file.

    Args:
        x: [B, C, H, W], floating point, any memory format; B may be 0. Under autocast it is cast as for torch's
            convolutions.
        weight: [O, C, 3, 3], of x's dtype. Under autocast pass float32: then the taps that `upsample=2` combines are
            summed before rounding, and the gradient is not rounded.
        bias: [O], of the weight's dtype, or None.
        upsample: 1, or 2 for nearest-neighbour upsampling before the padding.
        negative_slope: slope >= 0 of a LeakyReLU applied to the result; None for no activation.
        packed: of `pack_weights` for this weight, upsampling and x's dtype (under autocast the one that it casts to),
            which spares a call that Triton runs the packing; None to pack here, once for forward and backward. The
            gradient is the weight's all the same.

    Returns:
        [B, O, upsample * H, upsample * W]. Differentiable once, by reverse-mode autograd. torch.export, ONNX export,
        torch.jit.trace and torch.func's transforms use the four plain torch calls of `replicate_conv2d_ref`. A compiled
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
    if is_taken_apart():
        return replicate_conv2d_ref(x, weight, bias, upsample=upsample, negative_slope=negative_slope)
    packed = _packed(x, weight, packed, upsample)
    return _forward(x, weight, bias, packed, upsample, negative_slope, SOURCES)


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
