"""Triton kernel of `feature_loss`, and its launcher: all layers in one launch.

Each program processes one block of one layer, in the order of memory, and writes its weighted share of the loss; torch
sums the shares in a fixed order, so the loss is the same in every run.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from . import tiles
from .dispatch import capability, launch
from .layout import is_dense

# Layers per launch, limited by the kernel's arguments; VGG-19 has this many convolutions. More need several launches.
MAX_LAYERS = 16
# Bytes per load or store of a thread.
_VECTOR = 16
# From this many elements on, larger blocks still give enough programs to fill today's largest GPUs.
_LARGE = 2**22


@triton.jit
def feature_loss_kernel(
    f0, f1, f2, f3, f4, f5, f6, f7, f8, f9, f10, f11, f12, f13, f14, f15,
    t0, t1, t2, t3, t4, t5, t6, t7, t8, t9, t10, t11, t12, t13, t14, t15,
    n0, n1, n2, n3, n4, n5, n6, n7, n8, n9, n10, n11, n12, n13, n14, n15,
    w0, w1, w2, w3, w4, w5, w6, w7, w8, w9, w10, w11, w12, w13, w14, w15,
    shares, first_share, LAYERS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """share = w / (2 n) sum of (f - t)^2 over a block.

    The arguments are, for each layer, feature, target, number of elements and weight; None from LAYERS on. They are not
    tuples, because torch.compile does not support tuples of tensors.
    """
    features = (f0, f1, f2, f3, f4, f5, f6, f7, f8, f9, f10, f11, f12, f13, f14, f15)
    targets = (t0, t1, t2, t3, t4, t5, t6, t7, t8, t9, t10, t11, t12, t13, t14, t15)
    counts = (n0, n1, n2, n3, n4, n5, n6, n7, n8, n9, n10, n11, n12, n13, n14, n15)
    weights = (w0, w1, w2, w3, w4, w5, w6, w7, w8, w9, w10, w11, w12, w13, w14, w15)
    # Select the layer's arguments, for a single body: branches with a body for each of five layers are three times the
    # machine code. With tl.where the compiler still knows the pointers' alignment.
    program = tl.program_id(0).to(tl.int64)
    feature, target = f0, t0
    count, weight = tl.cast(n0, tl.int64), tl.cast(w0, tl.float32)  # Inductor passes the weight in float64
    first = tl.cast(0, tl.int64)  # first program of the selected layer
    begin = first
    for k in tl.static_range(1, LAYERS):
        begin += tl.maximum(tl.cdiv(tl.cast(counts[k - 1], tl.int64), BLOCK), 1)
        reached = program >= begin
        feature = tl.where(reached, features[k], feature)
        target = tl.where(reached, targets[k], target)
        count = tl.where(reached, tl.cast(counts[k], tl.int64), count)
        weight = tl.where(reached, tl.cast(weights[k], tl.float32), weight)
        first = tl.where(reached, begin, first)
    start = (program - first) * BLOCK
    feature, target = feature + start, target + start
    # Separate, since with a mask that can end anywhere each thread moves one element at a time.
    if start + BLOCK <= count:
        total = _block(feature, target, tl.full((BLOCK,), True, tl.int1), BLOCK)
    else:
        inside = tl.arange(0, BLOCK) < (count - start).to(tl.int32)
        total = _block(feature, target, inside, BLOCK)
    # For an empty layer 0 * (w / 0) = NaN, the mean of nothing.
    tl.store(shares + first_share + program, total * (0.5 * weight / count.to(tl.float32)))


@triton.jit
def _block(feature, target, inside, BLOCK: tl.constexpr):
    """The sum of a block's squared differences."""
    offset = tl.arange(0, BLOCK)
    f = tl.load(feature + offset, mask=inside, other=0.0).to(tl.float32)
    t = tl.load(target + offset, mask=inside, other=0.0).to(tl.float32)
    d = f - t
    return tl.sum(d * d)


def choose_tile(features: list[Tensor]) -> tiles.Tile | None:
    """The tile for these layers, or None if ATen was measured to be faster."""
    elements = tiles.size_class(int(sum(feature.numel() for feature in features)))
    warps, vectors = (8, 2) if elements >= _LARGE else (4, 1)
    default = {"BLOCK": 32 * warps * vectors * _VECTOR // features[0].element_size(), "num_warps": warps}
    return tiles.choose("feature_loss", f"n{elements}", features[0].dtype, capability(features[0]), default)


def forward(features: list[Tensor], targets: list[Tensor], weights: list[float], tile: tiles.Tile) -> Tensor:
    """The loss, float32."""
    # The kernel reads in the order of memory; a clone has no gaps.
    features = [feature if is_dense(feature) else feature.clone() for feature in features]
    targets = [_laid_out_as(feature, target) for feature, target in zip(features, targets, strict=True)]
    # An empty layer also gets a program, which makes the loss NaN.
    programs = [max(triton.cdiv(feature.numel(), tile["BLOCK"]), 1) for feature in features]
    shares = torch.empty(sum(programs), dtype=torch.float32, device=features[0].device)
    for begin in range(0, len(features), MAX_LAYERS):
        layers = slice(begin, begin + MAX_LAYERS)
        counts = [feature.numel() for feature in features[layers]]
        columns = (features[layers], targets[layers], counts, weights[layers])
        launch(
            feature_loss_kernel,
            (sum(programs[layers]),),
            *(argument for column in columns for argument in column + [None] * (MAX_LAYERS - len(column))),
            *(shares, sum(programs[:begin])),
            LAYERS=len(counts),
            **tile,
        )
    return shares.sum()


def _laid_out_as(x: Tensor, y: Tensor) -> Tensor:
    """y with the strides of x, which is dense."""
    return y if x.stride() == y.stride() else torch.empty_like(x).copy_(y)
