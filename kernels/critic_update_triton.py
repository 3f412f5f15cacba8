"""Update and clipping of a complete set of parameters in one launch: kernels and launches.

Each kernel gets a table of addresses (see `address_table`), whose columns are w, g, m, v and step for Adam, and w, g, v
and step for RMSprop. Program i updates one block of its tensor.

A gate is read from the device: if it is zero, no program stores anything. `gate != 0` is true for NaN.
"""

import math
from collections.abc import Sequence
from itertools import chain

import torch
import triton
import triton.language as tl
from torch import Tensor

from . import tiles
from .address_table import address_table
from .dispatch import capability, launch


@triton.jit
def _pointer(address, ALIGNED: tl.constexpr):
    pointer = address.to(tl.pointer_type(tl.float32))
    if ALIGNED:
        pointer = tl.multiple_of(pointer, 16)
    return pointer


@triton.jit
def _row(table, COLUMNS: tl.constexpr, BLOCK: tl.constexpr):
    """This program's tensor: address of its row, offset of this block in bytes, elements from there to the end."""
    program = tl.program_id(0)
    row = table + tl.num_programs(0) + tl.load(table + program) * COLUMNS
    start = (program - tl.load(row)) * BLOCK
    return row, start * 4, tl.load(row + 1) - start


@triton.jit
def _clipped(w, clip):
    # Comparisons, since minimum and maximum return the other argument for NaN on a GPU.
    if clip is not None:
        w = tl.where(w > clip, clip, w)
        w = tl.where(w < -clip, -clip, w)
    return w


@triton.jit
def _one_minus_power(log_base, t):
    """1 - base^t for 0 <= base < 1, in float32.

    With x = t log(base), uses the power series of 1 - exp(x) where exp(x) is near 1 and the difference would lose
    digits (three of seven for 1 - 0.999). The first omitted term is below 5e-8 of the sum.
    """
    x = log_base * t
    near = tl.maximum(x, -1.0)
    series = 1.0
    for n in tl.static_range(10, 1, -1):
        series = 1.0 + series * near * (1.0 / n)
    return tl.where(x > -1.0, -x * series, 1.0 - tl.exp(x))


@triton.jit
def _adam_clip_block(
    w_at, g_at, m_at, v_at, left, rate, inverse_root, beta1, beta2, rest1, rest2, eps, clip,
    WHOLE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    i = tl.arange(0, BLOCK)
    w_at, g_at = _pointer(w_at, WHOLE) + i, _pointer(g_at, WHOLE) + i
    m_at, v_at = _pointer(m_at, WHOLE) + i, _pointer(v_at, WHOLE) + i
    if WHOLE:
        inside: tl.constexpr = None
    else:
        inside = i < left
    w, g = tl.load(w_at, mask=inside), tl.load(g_at, mask=inside)
    m, v = tl.load(m_at, mask=inside), tl.load(v_at, mask=inside)
    m = beta1 * m + rest1 * g
    v = beta2 * v + rest2 * g * g
    w = _clipped(w - rate * (m / (tl.sqrt(v) * inverse_root + eps)), clip)
    tl.store(w_at, w, mask=inside)
    tl.store(m_at, m, mask=inside)
    tl.store(v_at, v, mask=inside)


@triton.jit
def adam_clip_kernel(
    table, gate, lr, lr_tensor, log_beta1, log_beta2, beta1, beta2, rest1, rest2, eps, clip, BLOCK: tl.constexpr
):
    """m = b1 m + (1 - b1) g, v = b2 v + (1 - b2) g^2, w = clip(w - lr / (1 - b1^t) m / (sqrt(v / (1 - b2^t)) + eps)).

    rest1 and rest2 are 1 - b1 and 1 - b2, rounded once: 1 - float32(0.999) has a relative error of 1e-5.
    """
    if gate is not None and tl.load(gate) == 0:
        return
    row, start, left = _row(table, 7, BLOCK)
    w_at, g_at = tl.load(row + 2) + start, tl.load(row + 3) + start
    m_at, v_at = tl.load(row + 4) + start, tl.load(row + 5) + start
    t = tl.load(_pointer(tl.load(row + 6), False))
    if lr_tensor is not None:
        lr = tl.load(lr_tensor).to(tl.float32)
    # Correctly rounded, unlike the operations per element: an error here affects all elements alike.
    rate = tl.div_rn(lr, _one_minus_power(log_beta1, t))
    inverse_root = tl.div_rn(1.0, tl.sqrt_rn(_one_minus_power(log_beta2, t)))
    # Full blocks aligned to 16 bytes move four numbers per instruction; views into flat buffers may not be aligned.
    if (left >= BLOCK) & (((w_at | g_at | m_at | v_at) & 15) == 0):
        _adam_clip_block(
            w_at, g_at, m_at, v_at, left, rate, inverse_root, beta1, beta2, rest1, rest2, eps, clip, True, BLOCK
        )
    else:
        _adam_clip_block(
            w_at, g_at, m_at, v_at, left, rate, inverse_root, beta1, beta2, rest1, rest2, eps, clip, False, BLOCK
        )


@triton.jit
def _rmsprop_clip_block(w_at, g_at, v_at, left, lr, alpha, rest, eps, clip, WHOLE: tl.constexpr, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    w_at, g_at, v_at = _pointer(w_at, WHOLE) + i, _pointer(g_at, WHOLE) + i, _pointer(v_at, WHOLE) + i
    if WHOLE:
        inside: tl.constexpr = None
    else:
        inside = i < left
    w, g, v = tl.load(w_at, mask=inside), tl.load(g_at, mask=inside), tl.load(v_at, mask=inside)
    v = alpha * v + rest * g * g
    w = _clipped(w - lr * (g / (tl.sqrt(v) + eps)), clip)
    tl.store(w_at, w, mask=inside)
    tl.store(v_at, v, mask=inside)


@triton.jit
def rmsprop_clip_kernel(table, gate, lr, lr_tensor, alpha, rest, eps, clip, BLOCK: tl.constexpr):
    """v = a v + (1 - a) g^2, w = clip(w - lr g / (sqrt(v) + eps)); rest is 1 - a. The step counter only counts."""
    if gate is not None and tl.load(gate) == 0:
        return
    row, start, left = _row(table, 6, BLOCK)
    if start == 0:
        step_at = _pointer(tl.load(row + 5), False)
        tl.store(step_at, tl.load(step_at) + 1)
    w_at, g_at, v_at = tl.load(row + 2) + start, tl.load(row + 3) + start, tl.load(row + 4) + start
    if lr_tensor is not None:
        lr = tl.load(lr_tensor).to(tl.float32)
    if (left >= BLOCK) & (((w_at | g_at | v_at) & 15) == 0):
        _rmsprop_clip_block(w_at, g_at, v_at, left, lr, alpha, rest, eps, clip, True, BLOCK)
    else:
        _rmsprop_clip_block(w_at, g_at, v_at, left, lr, alpha, rest, eps, clip, False, BLOCK)


def choose_tile(op: str, params: Sequence[Tensor]) -> tiles.Tile | None:
    """The tile for this number of parameters, or None if ATen was measured to be faster."""
    shape_class = f"n{tiles.size_class(sum(p.numel() for p in params))}"
    default = {"BLOCK": 1024, "num_warps": 4}
    return tiles.choose(op, shape_class, params[0].dtype, capability(params[0]), default)


def _changed(*columns: Sequence[Tensor]) -> None:
    """Lets autograd detect, as for torch's in-place operations, if a graph still needs the old values."""
    torch.autograd.graph.increment_version(list(chain.from_iterable(columns)))


def adam_clip_(
    params: Sequence[Tensor],
    grads: Sequence[Tensor],
    exp_avgs: Sequence[Tensor],
    exp_avg_sqs: Sequence[Tensor],
    steps: Sequence[Tensor],
    gate: Tensor | None,
    lr: float,
    lr_tensor: Tensor | None,
    betas: tuple[float, float],
    eps: float,
    clip: float | None,
    tile: tiles.Tile,
) -> None:
    """The op after its checks: all of a parameter's tensors have its strides, and `steps` already count this update.

    The kernel cannot increment them: a tensor has many programs, each needs the number, and one could read what another
    has changed. In RMSprop none needs it.
    """
    decays = [math.log(max(beta, 1e-30)) for beta in betas]
    with torch.cuda.device_of(params[0]):
        table, programs = address_table((params, grads, exp_avgs, exp_avg_sqs, steps), tile["BLOCK"])
        launch(
            adam_clip_kernel,
            (programs,),
            table,
            gate,
            *(lr, lr_tensor, *decays, *betas, 1 - betas[0], 1 - betas[1], eps, clip),
            **tile,
        )
    _changed(params, exp_avgs, exp_avg_sqs)


def rmsprop_clip_(
    params: Sequence[Tensor],
    grads: Sequence[Tensor],
    square_avgs: Sequence[Tensor],
    steps: Sequence[Tensor],
    gate: Tensor | None,
    lr: float,
    lr_tensor: Tensor | None,
    alpha: float,
    eps: float,
    clip: float | None,
    tile: tiles.Tile,
) -> None:
    """The op after its checks: all of a parameter's tensors have its strides."""
    with torch.cuda.device_of(params[0]):
        table, programs = address_table((params, grads, square_avgs, steps), tile["BLOCK"])
        launch(
            rmsprop_clip_kernel,
            (programs,),
            table,
            gate,
            *(lr, lr_tensor, alpha, 1 - alpha, eps, clip),
            **tile,
        )
    _changed(params, square_avgs, steps)
