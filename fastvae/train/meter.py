"""Loss terms of the steps since the last log line, kept on the device so that no step waits for a copy."""

import math
import time
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from fastvae.errors import FastvaeError

_COLUMNS = 16


class Reading(NamedTuple):
    """What the steps of a window reported.

    Attributes:
        steps: number of steps.
        means: mean of each term over the steps that reported it.
        extra: the numbers that `Meter.close` was given.
        not_finite: (step index from 0, term, value) of the first term that was not finite, or None.
        seconds: from the window's start to its end, by the clock of the device that ran the steps.
    """

    steps: int
    means: dict[str, float]
    extra: dict[str, float]
    not_finite: tuple[int, str, float] | None
    seconds: float


class Window:
    """The terms of some steps, on their way to the host.

    Args:
        rows: [1 + steps, columns], the extra numbers and then a row per step; on a GPU valid after `end`.
        extra: names of the numbers in the first row.
        reported: the names of each step's terms.
        start, end: `_mark`s before the first step and after the copy of the rows.
    """

    def __init__(self, rows: Tensor, extra: tuple[str, ...], reported: list[tuple[str, ...]], start, end):
        self._rows, self._extra, self._reported, self._start, self._end = rows, extra, reported, start, end

    def read(self) -> Reading:
        """On a GPU it waits until the device has done these steps."""
        seconds = _seconds_between(self._start, self._end)
        first, *rows = self._rows.tolist()
        values: dict[str, list[float]] = {}
        not_finite = None
        for index, (row, names) in enumerate(zip(rows, self._reported, strict=True)):
            for name, value in zip(names, row, strict=False):  # a row has more columns than a step has terms
                values.setdefault(name, []).append(value)
                if not_finite is None and not math.isfinite(value):
                    not_finite = (index, name, value)
        means = {name: sum(v) / len(v) for name, v in values.items()}
        return Reading(len(rows), means, dict(zip(self._extra, first, strict=False)), not_finite, seconds)


class Meter:
    """A table with one row of terms per step.

    `record` runs on the device and may be captured in a CUDA graph; `count` runs on the host, once per step; `close`
    enqueues a copy of the table and waits for nothing.

    Args:
        capacity: maximum number of steps in a window.
        device: of the terms.

    Attributes:
        state: the tensors that `record` changes.
    """

    def __init__(self, capacity: int, device: torch.device):
        # The first row is for the extra numbers of a window, so that one copy brings all.
        self._rows = torch.zeros(1 + capacity, _COLUMNS, device=device)
        self._position = torch.ones(1, dtype=torch.int64, device=device)
        self._reported: list[tuple[str, ...]] = []
        self.state = [self._rows, self._position]
        self._device = device
        # Two, so that one can be read while the next window is copied into the other.
        self._pinned = [torch.empty(self._rows.shape, pin_memory=True) for _ in range(2 * (device.type == "cuda"))]
        self.start()

    @property
    def steps(self) -> int:
        """Steps in the open window."""
        return len(self._reported)

    def start(self) -> None:
        """The window's time begins here, instead of at the end of the window before it."""
        self._start = _mark(self._device)

    def record(self, terms: Mapping[str, Tensor]) -> None:
        """Writes a step's terms, scalars on the device, into the next row."""
        self._rows[:, : len(terms)].index_copy_(0, self._position, _stacked(terms)[None])
        self._position.add_(1)

    def count(self, names: tuple[str, ...]) -> None:
        """Notes that a step reported these terms."""
        self._reported.append(names)

    def close(self, extra: Mapping[str, Tensor] | None = None) -> Window:
        """Ends the window and opens the next; on a GPU a window must be read before the second `close` after its own.

        Args:
            extra: numbers to bring along, scalars on the device.
        """
        extra, reported, self._reported = dict(extra or {}), self._reported, []
        if extra:
            self._rows[0, : len(extra)] = _stacked(extra)
        rows = self._rows[: 1 + len(reported)]
        if self._pinned:
            self._pinned.reverse()
            rows = self._pinned[0][: len(rows)].copy_(rows, non_blocking=True)
        else:
            rows = rows.clone()
        self._position.fill_(1)
        start = self._start
        self.start()
        return Window(rows, tuple(extra), reported, start, self._start)

    def read(self) -> Reading:
        """`close`, and the result at once; waits for the device."""
        return self.close().read()


def _stacked(terms: Mapping[str, Tensor]) -> Tensor:
    if len(terms) > _COLUMNS:
        raise FastvaeError(f"expected at most {_COLUMNS} terms per step; got {len(terms)}: {', '.join(terms)}")
    return torch.stack([value.float() for value in terms.values()])


def _mark(device: torch.device) -> torch.cuda.Event | float:
    """This moment: on a GPU that at which the device will have done what is enqueued now."""
    if device.type != "cuda":
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True, blocking=True)  # blocking: a waiting host leaves its core to others
    event.record()
    return event


def _seconds_between(start: torch.cuda.Event | float, end: torch.cuda.Event | float) -> float:
    if isinstance(end, float):
        return end - start
    end.synchronize()
    return start.elapsed_time(end) / 1e3
