"""Update and clipping of a complete set of parameters in one launch: kernels, tables of addresses, launches.

A kernel gets one table of 64-bit integers on the device,

    for each program          the number of its tensor
    for each tensor, a row    its first program, its element count, the addresses of w, g, m, v and step (RMSprop:
                              w, g and v)

and program i updates one block of its tensor. The look-up costs 8 bytes per program, compared with the 28 KB that a
block of 1024 moves; searching the rows instead would be a chain of dependent loads before the first useful one.

The host fills the table in pinned memory and copies it asynchronously, and only if an address changed: the allocator
mostly gives gradients the same memory in each step. An update that is being captured always gets its own table. Its
copy becomes a node of the CUDA graph, which reads the host's buffer at every replay, so that buffer is kept unchanged
until the process ends (20 KB for the paper's critic). The device's copy is in the graph's memory and never in the
cache; and a graph never uses a table of the cache, which may be evicted.
"""

import math
from collections import OrderedDict
from collections.abc import Sequence
from itertools import accumulate, chain

import torch
import triton
import triton.language as tl
from torch import Tensor

from . import tiles
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
    table, lr, lr_tensor, log_beta1, log_beta2, beta1, beta2, rest1, rest2, eps, clip, BLOCK: tl.constexpr
):
    """m = b1 m + (1 - b1) g, v = b2 v + (1 - b2) g^2, w = clip(w - lr / (1 - b1^t) m / (sqrt(v / (1 - b2^t)) + eps)).

    rest1 and rest2 are 1 - b1 and 1 - b2, rounded once: 1 - float32(0.999) has a relative error of 1e-5.
    """
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
def rmsprop_clip_kernel(table, lr, lr_tensor, alpha, rest, eps, clip, BLOCK: tl.constexpr):
    """v = a v + (1 - a) g^2, w = clip(w - lr g / (sqrt(v) + eps)); rest is 1 - a."""
    row, start, left = _row(table, 5, BLOCK)
    w_at, g_at, v_at = tl.load(row + 2) + start, tl.load(row + 3) + start, tl.load(row + 4) + start
    if lr_tensor is not None:
        lr = tl.load(lr_tensor).to(tl.float32)
    if (left >= BLOCK) & (((w_at | g_at | v_at) & 15) == 0):
        _rmsprop_clip_block(w_at, g_at, v_at, left, lr, alpha, rest, eps, clip, True, BLOCK)
    else:
        _rmsprop_clip_block(w_at, g_at, v_at, left, lr, alpha, rest, eps, clip, False, BLOCK)


# Tables on the device, by their contents.
_tables: OrderedDict[tuple, Tensor] = OrderedDict()
_MAX_TABLES = 32
# Pinned memory: what captured graphs read, and what is reserved for later captures.
_read_by_graphs: list[Tensor] = []
_put_aside: dict[str, Tensor] = {}


def _table(columns: Sequence[Sequence[Tensor]], block: int) -> tuple[Tensor, int]:
    """The table on the device, and its number of programs.

    Args:
        columns: the tensors whose addresses are in a row, the parameters first.
        block: elements per program.
    """
    sizes = tuple([p.numel() for p in columns[0]])
    addresses = tuple([tuple([t.data_ptr() for t in column]) for column in columns])
    device = columns[0][0].device
    programs = [-(-size // block) for size in sizes]
    count = sum(programs)
    length = count + len(sizes) * (2 + len(columns))
    if _is_capturing(device):
        host = _taken_aside(length, device)
        _read_by_graphs.append(host)
        return _filled(host, programs, sizes, addresses).to(device, non_blocking=True), count
    _put_memory_aside(length, device)
    # A table belongs to the stream that it was copied on, which orders its first use and the reuse of its memory.
    stream = torch.cuda.current_stream().cuda_stream if device.type == "cuda" else None
    key = (device, stream, block, sizes, addresses)
    table = _tables.pop(key, None)
    if table is None:
        table = _filled(_host_memory(length, device), programs, sizes, addresses).to(device, non_blocking=True)
    _tables[key] = table
    if len(_tables) > _MAX_TABLES:
        _tables.popitem(last=False)
    return table, count


def _filled(
    table: Tensor, programs: list[int], sizes: tuple[int, ...], addresses: tuple[tuple[int, ...], ...]
) -> Tensor:
    firsts = list(accumulate(programs, initial=0))
    count = firsts.pop()
    table[:count] = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(programs))
    rows = zip(firsts, sizes, *addresses, strict=True)
    table[count:] = torch.tensor(list(chain.from_iterable(rows)), dtype=torch.int64)
    return table


def _is_capturing(device: torch.device) -> bool:
    return device.type == "cuda" and torch.cuda.is_current_stream_capturing()


def _host_memory(length: int, device: torch.device) -> Tensor:
    return torch.empty(length, dtype=torch.int64, pin_memory=device.type == "cuda")


def _put_memory_aside(length: int, device: torch.device) -> None:
    """Reserves memory for several tables of this length, since not every torch version can pin memory in a capture."""
    if len(_put_aside.get(device.type, ())) < 8 * length:
        _put_aside[device.type] = _host_memory(max(16 * length, 2**16), device)


def _taken_aside(length: int, device: torch.device) -> Tensor:
    """Reserved memory of this length that nothing else will write to."""
    if len(_put_aside.get(device.type, ())) < length:
        _put_aside[device.type] = _host_memory(length, device)
    memory = _put_aside[device.type]
    _put_aside[device.type] = memory[length:]
    return memory[:length]


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
    lr: float,
    lr_tensor: Tensor | None,
    betas: tuple[float, float],
    eps: float,
    clip: float | None,
    tile: tiles.Tile,
) -> None:
    """The op after its checks: all of a parameter's tensors have its strides, and `steps` already count this update.

    The kernel cannot increment them: a tensor has many programs, and one could read what another has changed.
    """
    decays = [math.log(max(beta, 1e-30)) for beta in betas]
    with torch.cuda.device_of(params[0]):
        table, programs = _table((params, grads, exp_avgs, exp_avg_sqs, steps), tile["BLOCK"])
        launch(
            adam_clip_kernel,
            (programs,),
            table,
            *(lr, lr_tensor, *decays, *betas, 1 - betas[0], 1 - betas[1], eps, clip),
            **tile,
        )
    _changed(params, exp_avgs, exp_avg_sqs)


def rmsprop_clip_(
    params: Sequence[Tensor],
    grads: Sequence[Tensor],
    square_avgs: Sequence[Tensor],
    lr: float,
    lr_tensor: Tensor | None,
    alpha: float,
    eps: float,
    clip: float | None,
    tile: tiles.Tile,
) -> None:
    """The op after its checks: all of a parameter's tensors have its strides."""
    with torch.cuda.device_of(params[0]):
        table, programs = _table((params, grads, square_avgs), tile["BLOCK"])
        launch(
            rmsprop_clip_kernel,
            (programs,),
            table,
            *(lr, lr_tensor, alpha, 1 - alpha, eps, clip),
            **tile,
        )
    _changed(params, square_avgs)
