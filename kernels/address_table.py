"""Tables of addresses on the device, with which one launch works on a list of tensors.

A table is an array of 64-bit integers,

    for each program          the number of its tensor
    for each tensor, a row    its first program, its element count, an address for each column

and program i works on one block of its tensor. The look-up costs 8 bytes per program, compared with the 28 KB that a
block of 1024 moves; searching the rows instead would be a chain of dependent loads before the first useful one.

The host fills a table in pinned memory and copies it asynchronously, and only if an address changed: the allocator
mostly gives gradients the same memory in each step. A captured launch always gets a table of its own, since the cache
may evict its tables. There are two ways for its contents to reach the device:

- By a node of the graph, which copies them at every replay. The host's buffer is then kept unchanged, and the device's
  is in the graph's memory.
- Once, when the capture has ended, inside `tables_copied_once`. The table is then in memory that was allocated before
  the capture: the graph's own may hold something else earlier in each replay. It is kept until the process ends, like
  the host's buffers of the first way (20 KB for the paper's critic).
"""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import accumulate, chain

import torch
from torch import Tensor

# Tables on the device, by their contents.
_tables: OrderedDict[tuple, Tensor] = OrderedDict()
_MAX_TABLES = 32
# What captured graphs read: the device's tables, and pinned memory that their nodes copy.
_read_by_graphs: list[Tensor] = []
# Pinned memory, reserved for later captures.
_put_aside: dict[str, Tensor] = {}
# Each table in the device's reserved memory starts at a multiple of so many bytes, as if it were allocated alone.
# Triton compiles another kernel for an address that is no multiple of 16, and a capture must not load one.
_ALIGNMENT = 512


def address_table(columns: Sequence[Sequence[Tensor]], block: int) -> tuple[Tensor, int]:
    """The table on the device, and its number of programs, at least one for each tensor, even if it is empty.

    Args:
        columns: the tensors whose addresses are in a row; the first column's have the sizes.
        block: elements per program.
    """
    sizes = tuple([t.numel() for t in columns[0]])
    addresses = tuple([tuple([t.data_ptr() for t in column]) for column in columns])
    device = columns[0][0].device
    programs = [max(1, -(-size // block)) for size in sizes]
    count = sum(programs)
    length = count + len(sizes) * (2 + len(columns))

    def filled(host: Tensor) -> Tensor:
        return _filled(host, programs, sizes, addresses)

    if _is_capturing(device):
        reserve = _reserve.get()
        if reserve is not None and (table := reserve.take(length, device)) is not None:
            reserve.copies.append((table, filled(torch.empty(length, dtype=torch.int64, device="cpu"))))
            return table, count
        host = _taken_aside(length, device)
        _read_by_graphs.append(host)
        return filled(host).to(device, non_blocking=True), count
    _put_memory_aside(length, device)
    # A table belongs to the stream that it was copied on, which orders its first use and the reuse of its memory.
    stream = torch.cuda.current_stream().cuda_stream if device.type == "cuda" else None
    key = (device, stream, block, sizes, addresses)
    table = _tables.pop(key, None)
    if table is None:
        table = filled(_host_memory(length, device)).to(device, non_blocking=True)
    _tables[key] = table
    if len(_tables) > _MAX_TABLES:
        _tables.popitem(last=False)
    return table, count


@contextmanager
def tables_copied_once() -> Iterator[None]:
    """Around the capture of a CUDA graph: its updates' tables are copied when the block ends, not at every replay.

        with tables_copied_once(), torch.cuda.graph(graph):
            ...

    The capture must end inside the block, and the end of the block waits for the copies, so that the graph may then be
    replayed on any stream. Nothing is copied if the block raises. The updates must have run before, as for every
    capture: their tables' sizes say how much memory is reserved. An update that needs more than that copies at every
    replay, as without this block.
    """
    if torch.cuda.is_available() and torch.cuda.is_current_stream_capturing():
        raise RuntimeError("tables_copied_once expects to be entered before the capture; got one that has begun")
    reserve = _Reserve()
    token = _reserve.set(reserve)
    try:
        yield
    finally:
        _reserve.reset(token)
    for table, contents in reserve.copies:
        table.copy_(contents)
        _read_by_graphs.append(table)


class _Reserve:
    """Memory on each device for the tables of one capture, and what to copy there after it.

    As much as the tables need that are in use: each update that is captured has been run and has one.
    """

    def __init__(self):
        self.copies: list[tuple[Tensor, Tensor]] = []
        lengths: dict[torch.device, int] = {}
        for table in _tables.values():
            lengths[table.device] = lengths.get(table.device, 0) + _aligned(len(table))
        self._free = {
            device: torch.empty(length, dtype=torch.int64, device=device) for device, length in lengths.items()
        }

    def take(self, length: int, device: torch.device) -> Tensor | None:
        """Memory of this length that nothing else will write to, or None if too little is left."""
        free = self._free.get(device)
        if free is None or len(free) < length:
            return None
        self._free[device] = free[_aligned(length) :]
        return free[:length]


_reserve: ContextVar[_Reserve | None] = ContextVar("reserve", default=None)


def _aligned(length: int) -> int:
    """The number of 64-bit integers from the start of a table of this length to the next."""
    step = _ALIGNMENT // 8
    return -(-length // step) * step


def _filled(
    table: Tensor, programs: list[int], sizes: tuple[int, ...], addresses: tuple[tuple[int, ...], ...]
) -> Tensor:
    firsts = list(accumulate(programs, initial=0))
    count = firsts.pop()
    numbers, repeats = torch.arange(len(sizes), device="cpu"), torch.tensor(programs, device="cpu")
    table[:count] = torch.repeat_interleave(numbers, repeats)
    rows = zip(firsts, sizes, *addresses, strict=True)
    table[count:] = torch.tensor(list(chain.from_iterable(rows)), dtype=torch.int64, device="cpu")
    return table


def _is_capturing(device: torch.device) -> bool:
    return device.type == "cuda" and torch.cuda.is_current_stream_capturing()


def _host_memory(length: int, device: torch.device) -> Tensor:
    return torch.empty(length, dtype=torch.int64, device="cpu", pin_memory=device.type == "cuda")


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
