"""Triton kernels of `batch_norm`: each direction's sums in one launch, in the same order in every run.

The maps are [batches, M, C] in memory, M = B H W. A program adds up some rows of one batch and some channels, writes
its partial sums, and takes a ticket. The one that takes the last ticket of its channels adds the partial sums of all
programs, in the order of their numbers whoever is last, and finishes the work, which would otherwise be a second
launch. It also sets the tickets to zero again, for the next launch with the same parameters.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from . import tiles
from .dispatch import capability, launch
from .layout import channels_last

# Elements of a program's tile: two float32 sums of each in 64 registers of 128 threads.
_TILE = 4096
# Partial sums that the last program loads at once.
_GATHERED = 32


@triton.jit
def _is_last(ticket, count):
    """Whether this program is the last of `count` that come here; then the others' stores are visible to it."""
    tl.debug_barrier()  # all threads of this program have written
    taken = tl.atomic_add(ticket, 1, sem="acq_rel")
    tl.debug_barrier()
    return taken == count - 1


@triton.jit
def _gathered(partials, batch, splits, C: tl.constexpr, c, inside, BLOCK_C: tl.constexpr, GATHERED: tl.constexpr):
    """The two sums over a batch's programs, from partials [batches, splits, 2, C]."""
    first = tl.zeros((GATHERED, BLOCK_C), tl.float32)
    second = tl.zeros((GATHERED, BLOCK_C), tl.float32)
    for start in range(0, splits, GATHERED):
        split = start + tl.arange(0, GATHERED)
        at = (batch * splits + split)[:, None] * (2 * C) + c[None, :]
        mask = (split < splits)[:, None] & inside[None, :]
        # From the cache that all multiprocessors share: other programs wrote them during this launch.
        first += tl.load(partials + at, mask=mask, other=0.0, cache_modifier=".cg")
        second += tl.load(partials + at + C, mask=mask, other=0.0, cache_modifier=".cg")
    return tl.sum(first, 0), tl.sum(second, 0)


@triton.jit
def _rows(start, batch, M, C: tl.constexpr, c, inside, BLOCK_M: tl.constexpr):
    """Where BLOCK_M rows of a batch lie, from `start` on, and which of their elements there are."""
    m = start + tl.arange(0, BLOCK_M)
    return ((batch.to(tl.int64) * M + m) * C)[:, None] + c[None, :], (m < M)[:, None] & inside[None, :]


@triton.jit
def _shift(x, batch, M, C: tl.constexpr, c, inside, BLOCK_M: tl.constexpr):
    """The mean over a batch's first rows."""
    at, mask = _rows(0, batch, M, C, c, inside, BLOCK_M)
    first = tl.load(x + at, mask=mask, other=0.0).to(tl.float32)
    return tl.sum(first, 0) / tl.minimum(M, BLOCK_M)


@triton.jit
def statistics_kernel(
    x, partials, statistics, running_mean, running_var, tickets, M, C: tl.constexpr, splits, rows, momentum, eps,
    BATCHES: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_C: tl.constexpr, GATHERED: tl.constexpr,
):  # fmt: skip
    """statistics[0] = mean, [1] = 1 / sqrt(variance + eps), of each batch; running statistics in place.

    Sums x - s and its square, where s is the mean of a few of the values: the variance is then a difference of two
    numbers of its own size, and not of the squared mean's.
    """
    split, batch = tl.program_id(0), tl.program_id(2)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    inside = c < C
    shift = _shift(x, batch, M, C, c, inside, BLOCK_M)
    total = tl.zeros((BLOCK_M, BLOCK_C), tl.float32)
    squares = tl.zeros((BLOCK_M, BLOCK_C), tl.float32)
    for start in range(split * rows, tl.minimum((split + 1) * rows, M), BLOCK_M):
        at, mask = _rows(start, batch, M, C, c, inside, BLOCK_M)
        d = tl.where(mask, tl.load(x + at, mask=mask, other=0.0).to(tl.float32) - shift[None, :], 0.0)
        total += d
        squares += d * d
    at = (batch * splits + split) * (2 * C) + c
    tl.store(partials + at, tl.sum(total, 0), mask=inside)
    tl.store(partials + at + C, tl.sum(squares, 0), mask=inside)
    ticket = tickets + tl.program_id(1)
    if _is_last(ticket, splits * BATCHES):
        tl.store(ticket, 0)
        new_mean = tl.load(running_mean + c, mask=inside, other=0.0)
        new_var = tl.load(running_var + c, mask=inside, other=0.0)
        for b in tl.static_range(BATCHES):
            of_batch = tl.full((), b, tl.int32)
            first, second = _gathered(partials, of_batch, splits, C, c, inside, BLOCK_C, GATHERED)
            offset = first / M
            variance = second / M - offset * offset
            variance = tl.where(variance < 0, 0.0, variance)  # not a maximum, so that NaN stays NaN
            mean = _shift(x, of_batch, M, C, c, inside, BLOCK_M) + offset
            tl.store(statistics + b * C + c, mean, mask=inside)
            tl.store(statistics + (BATCHES + b) * C + c, tl.div_rn(1.0, tl.sqrt_rn(variance + eps)), mask=inside)
            new_mean += momentum * (mean - new_mean)
            new_var += momentum * (variance * (M / (M - 1)) - new_var)
        tl.store(running_mean + c, new_mean, mask=inside)
        tl.store(running_var + c, new_var, mask=inside)


@triton.jit
def sums_kernel(
    grad, x, y, statistics, weight, bias, partials, sums, dweight, dbias, tickets, M, C: tl.constexpr, splits, rows,
    slope, BATCHES: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_C: tl.constexpr, GATHERED: tl.constexpr,
):  # fmt: skip
    """sums[0] = sum of g, [1] = sum of g x', of each batch; dbias and dweight, their sums over the batches."""
    split, batch = tl.program_id(0), tl.program_id(2)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    inside = c < C
    mean = tl.load(statistics + batch * C + c, mask=inside, other=0.0)[None, :]
    inverse = tl.load(statistics + (BATCHES + batch) * C + c, mask=inside, other=0.0)[None, :]
    gain = tl.load(weight + c, mask=inside, other=0.0).to(tl.float32)[None, :]
    offset = tl.load(bias + c, mask=inside, other=0.0).to(tl.float32)[None, :]
    total = tl.zeros((BLOCK_M, BLOCK_C), tl.float32)
    along = tl.zeros((BLOCK_M, BLOCK_C), tl.float32)
    for start in range(split * rows, tl.minimum((split + 1) * rows, M), BLOCK_M):
        at, mask = _rows(start, batch, M, C, c, inside, BLOCK_M)
        g = tl.load(grad + at, mask=mask, other=0.0).to(tl.float32)
        normalised = (tl.load(x + at, mask=mask, other=0.0).to(tl.float32) - mean) * inverse
        if slope is not None:
            if y is not None:
                positive = tl.load(y + at, mask=mask, other=0.0).to(tl.float32) > 0
            else:
                positive = normalised * gain + offset > 0
            g = tl.where(positive, g, g * tl.cast(slope, tl.float32))
        total += g
        along += tl.where(mask, g * normalised, 0.0)
    at = (batch * splits + split) * (2 * C) + c
    tl.store(partials + at, tl.sum(total, 0), mask=inside)
    tl.store(partials + at + C, tl.sum(along, 0), mask=inside)
    ticket = tickets + tl.program_id(1)
    if _is_last(ticket, splits * BATCHES):
        tl.store(ticket, 0)
        of_weight = tl.zeros((BLOCK_C,), tl.float32)
        of_bias = tl.zeros((BLOCK_C,), tl.float32)
        for b in tl.static_range(BATCHES):
            of_batch = tl.full((), b, tl.int32)
            first, second = _gathered(partials, of_batch, splits, C, c, inside, BLOCK_C, GATHERED)
            tl.store(sums + b * C + c, first, mask=inside)
            tl.store(sums + (BATCHES + b) * C + c, second, mask=inside)
            of_bias += first
            of_weight += second
        tl.store(dbias + c, of_bias.to(dbias.dtype.element_ty), mask=inside)
        tl.store(dweight + c, of_weight.to(dweight.dtype.element_ty), mask=inside)


def choose_tile(x: Tensor, batches: int) -> tiles.Tile:
    """The tile of both kernels."""
    channels = int(x.shape[1])
    rows = int(x.numel()) // (channels * batches)
    block_c = min(64, max(16, tiles.size_class(channels)))
    default = {"BLOCK_M": min(_TILE // block_c, max(16, tiles.size_class(rows))), "BLOCK_C": block_c, "num_warps": 4}
    shape_class = f"c{channels} m{tiles.size_class(rows)} n{batches}"
    # There is no ATen form to prefer: without these kernels the caller does not come here.
    return tiles.choose("batch_norm", shape_class, x.dtype, capability(x), default) or default


def _grid(x: Tensor, batches: int, tile: tiles.Tile) -> tuple[tuple[int, int, int], int, int]:
    """The grid, M, and the rows of a program; they depend on shape and tile alone, so that each bit is reproducible."""
    channels = x.shape[1]
    count = x.numel() // (channels * batches)
    blocks = triton.cdiv(channels, tile["BLOCK_C"])
    splits = min(triton.cdiv(tiles.ENOUGH_PROGRAMS, blocks * batches), triton.cdiv(count, tile["BLOCK_M"]))
    rows = tile["BLOCK_M"] * triton.cdiv(count, tile["BLOCK_M"] * splits)
    return (triton.cdiv(count, rows), blocks, batches), count, rows


# By device, address of the parameters, and number: never freed, since a captured graph may use them; 512 bytes each.
_tickets: dict[tuple[torch.device, int, int], Tensor] = {}


def _tickets_of(owner: Tensor, count: int) -> Tensor:
    """int32 zeros [count] that only launches with the parameters `owner` use."""
    key = (owner.device, owner.data_ptr(), count)
    if key not in _tickets:
        zeros = torch.zeros(count, dtype=torch.int32, device=owner.device)
        if owner.device.type == "cuda" and torch.cuda.is_current_stream_capturing():
            return zeros  # in the graph's memory, and set to zero by each replay
        _tickets[key] = zeros
    return _tickets[key]


def statistics(
    x: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    batches: int,
    momentum: float,
    eps: float,
) -> Tensor:
    """The op: float32 [2, batches, C], each batch's mean and 1 / sqrt(variance + eps)."""
    x, tile, channels = channels_last(x), choose_tile(x, batches), x.shape[1]
    grid, count, rows = _grid(x, batches, tile)
    partials = torch.empty((batches, grid[0], 2, channels), dtype=torch.float32, device=x.device)
    found = torch.empty((2, batches, channels), dtype=torch.float32, device=x.device)
    launch(
        statistics_kernel,
        grid,
        *(x, partials, found, running_mean, running_var, _tickets_of(running_mean, grid[1])),
        *(count, channels, grid[0], rows, momentum, eps),
        BATCHES=batches,
        GATHERED=_GATHERED,
        **tile,
    )
    return found


def sums(
    grad: Tensor,
    x: Tensor,
    y: Tensor | None,
    statistics: Tensor,
    weight: Tensor,
    bias: Tensor,
    negative_slope: float | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """The op: float32 [2, batches, C], each batch's sum of g and of g x'; dL/dweight and dL/dbias [C]."""
    grad, x, y = channels_last(grad), channels_last(x), None if y is None else channels_last(y)
    batches, channels = statistics.shape[1:]
    tile = choose_tile(x, batches)
    grid, count, rows = _grid(x, batches, tile)
    partials = torch.empty((batches, grid[0], 2, channels), dtype=torch.float32, device=x.device)
    found, dweight, dbias = torch.empty_like(statistics), torch.empty_like(weight), torch.empty_like(bias)
    launch(
        sums_kernel,
        grid,
        *(grad, x, y, statistics, weight, bias, partials, found, dweight, dbias, _tickets_of(weight, grid[1])),
        *(count, channels, grid[0], rows, negative_slope),
        BATCHES=batches,
        GATHERED=_GATHERED,
        **tile,
    )
    return found, dweight, dbias
