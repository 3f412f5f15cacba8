"""The weight of `replicate_conv2d` as its Triton kernels read it: taps summed, and laid out for their products.

With phases (p, q) and shifts (s, t) as in `replicate_conv_triton`, and w[o, c, a, b] the weight,

    W[p, q, s, t][o, c] = sum of w[o, c, a, b] over the taps a that phase p reads at shift s, and b, q, t alike

in float32 before any rounding. The forward pass and the gradient of x read the same W, so a step packs each weight
once, and all of them in one launch; weights that stay as they are, once for all calls.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .dispatch import launch, provider

# Up to this many output channels the four phases together fit into the narrowest tile of the tensor cores, 16 columns.
_PACKED_CHANNELS = 4
# Numbers of a program of the kernels that only move weights.
WEIGHT_TILE = {"BLOCK": 1024, "num_warps": 4}
# Weights per launch, limited by the kernel's arguments; a decoder has ten. More need several launches.
MAX_WEIGHTS = 16


@dataclass(frozen=True)
class Form:
    """How a call maps to the kernels' matrix products.

    Attributes:
        packed: whether the four phases are columns of one product (see `replicate_conv_triton`).
        phases: number of products along the grid's axis of phases.
        steps: number of shifts of all phases, the leading dimension of the packed weight.
        columns: N, the output channels of one product.
    """

    packed: bool
    phases: int
    steps: int
    columns: int

    @classmethod
    def of(cls, weight: Tensor, upsample: int) -> "Form":
        channels = weight.shape[0]
        if upsample == 1:
            return cls(False, 1, 9, channels)
        if channels <= _PACKED_CHANNELS:
            return cls(True, 1, 9, 4 * channels)
        return cls(False, 4, 16, channels)


def packed_shape(weight: Tensor, upsample: int) -> tuple[int, int, int]:
    """[steps, columns, C] of a packed weight."""
    form = Form.of(weight, upsample)
    return form.steps, form.columns, weight.shape[1]


def packed_weight_ref(weight: Tensor, upsample: int) -> Tensor:
    """The specification of a packed weight, in the weight's precision."""
    form, (o, c) = Form.of(weight, upsample), weight.shape[:2]
    # reads[p, s + 1, a]: whether phase p reads tap a at shift s.
    reads = torch.zeros(upsample, 3, 3, dtype=weight.dtype, device=weight.device)
    for p in range(upsample):
        for a in range(3):
            reads[p, (p + a - 1) // upsample + 1, a] = 1
    by_shift = torch.einsum("psa,qtb,ocab->stpqoc", reads, reads, weight)
    if form.steps == 9:
        return by_shift.reshape(9, form.columns, c)
    phases = [by_shift[p : p + 2, q : q + 2, p, q].reshape(4, o, c) for p in range(2) for q in range(2)]
    return torch.cat(phases)


def pack_weights(weights: Sequence[Tensor], upsamples: Sequence[int], dtype: torch.dtype) -> list[Tensor | None]:
    """Packs weights of `replicate_conv2d` for its argument `packed`, at most 16 in a launch.

    Args:
        weights: [O, C, 3, 3] each, of one dtype and device.
        upsamples: 1 or 2 for each: as the convolution is called.
        dtype: of the convolutions' x; under autocast the one that it casts to.

    Returns:
        For each weight [steps, columns, C] of `dtype`, without a gradient; None for all if the convolutions run in
        ATen, which reads the weight itself. What is packed does not follow later changes of the weight.

    Raises:
        ValueError: weights differ in dtype or device, one has another shape, or `upsamples` another length.
    """
    if len(upsamples) != len(weights) or any(upsample not in (1, 2) for upsample in upsamples):
        raise ValueError(f"pack_weights expects upsample 1 or 2 for each of {len(weights)} weights; got {upsamples}")
    for weight in weights:
        if weight.dim() != 4 or tuple(weight.shape[2:]) != (3, 3):
            raise ValueError(f"pack_weights expects weights [O, C, 3, 3]; got {list(weight.shape)}")
        if weight.dtype != weights[0].dtype or weight.device != weights[0].device:
            raise ValueError(
                f"pack_weights expects one dtype and device; got {weights[0].dtype} on {weights[0].device} and "
                f"{weight.dtype} on {weight.device}"
            )
    if not weights or provider("replicate_conv2d", weights[0], dtype) != "triton":
        return [None] * len(weights)
    return _pack([weight.detach() for weight in weights], upsamples, dtype)


# Opaque to the compiler, which could otherwise choose to pack again in the backward pass.
@torch.library.custom_op("fastvae::pack_weights", mutates_args=())
def _pack(weights: Sequence[Tensor], upsamples: Sequence[int], dtype: torch.dtype) -> list[Tensor]:
    if provider("replicate_conv2d", weights[0], dtype) == "triton":
        return pack_by_triton(weights, upsamples, dtype)
    return [packed_weight_ref(w, u).to(dtype) for w, u in zip(weights, upsamples, strict=True)]


@_pack.register_fake
def _(weights, upsamples, dtype):
    shapes = [packed_shape(w, u) for w, u in zip(weights, upsamples, strict=True)]
    return [w.new_empty(shape, dtype=dtype) for w, shape in zip(weights, shapes, strict=True)]


def pack_by_triton(weights: Sequence[Tensor], upsamples: Sequence[int], dtype: torch.dtype) -> list[Tensor]:
    """The packed weights, by Triton's kernel."""
    from . import replicate_conv_triton as kernels

    found = [w.new_empty(packed_shape(w, u), dtype=dtype) for w, u in zip(weights, upsamples, strict=True)]
    for begin in range(0, len(weights), MAX_WEIGHTS):
        some = slice(begin, begin + MAX_WEIGHTS)
        read = [w if _is_channels_last(w) else w.contiguous() for w in weights[some]]
        columns = (
            read,
            found[some],
            [len(w) for w in read],
            [w.shape[1] for w in read],
            [packed.shape[1] for packed in found[some]],
            list(upsamples[some]),
            [1 if _is_channels_last(w) else 9 for w in read],
        )
        launch(
            kernels.pack_weights_kernel,
            (sum(-(-packed.numel() // WEIGHT_TILE["BLOCK"]) for packed in found[some]),),
            *(argument for column in columns for argument in column + [None] * (MAX_WEIGHTS - len(read))),
            WEIGHTS=len(read),
            **WEIGHT_TILE,
        )
    return found


def _is_channels_last(weight: Tensor) -> bool:
    return weight.is_contiguous(memory_format=torch.channels_last)
