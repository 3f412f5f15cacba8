"""Loss terms of the steps since the last log line, kept on the device so that no step waits for a copy."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from fastvae.errors import FastvaeError

_COLUMNS = 16


class Reading(NamedTuple):
    """The result of `Meter.read`.

    Attributes:
        steps: number of steps since the last reading.
        means: mean of each term over the steps that reported it.
        not_finite: (step index from 0, term, value) of the first term that was not finite, or None.
    """

    steps: int
    means: dict[str, float]
    not_finite: tuple[int, str, float] | None


class Meter:
    """A table with one row of terms per step.

    `record` runs on the device and may be captured in a CUDA graph; `count` runs on the host, once per step; `read`
    waits for the device.

    Args:
        capacity: maximum number of steps between two readings.
        device: of the terms.

    Attributes:
        state: the tensors that `record` changes.
    """

    def __init__(self, capacity: int, device: torch.device):
        self._rows = torch.zeros(capacity, _COLUMNS, device=device)
        self._position = torch.zeros(1, dtype=torch.int64, device=device)
        self._reported: list[tuple[str, ...]] = []
        self.state = [self._rows, self._position]

    def record(self, terms: dict[str, Tensor]) -> None:
        """Writes a step's terms, scalars on the device, into the next row."""
        if len(terms) > _COLUMNS:
            raise FastvaeError(f"expected at most {_COLUMNS} terms per step; got {len(terms)}: {', '.join(terms)}")
        values = torch.stack([value.float() for value in terms.values()])
        self._rows[:, : len(terms)].index_copy_(0, self._position, values[None])
        self._position.add_(1)

    def count(self, names: tuple[str, ...]) -> None:
        """Notes that a step reported these terms."""
        self._reported.append(names)

    def read(self) -> Reading:
        """Reads and clears the terms since the last reading; waits for the device."""
        rows = self._rows[: len(self._reported)].cpu().tolist()
        values: dict[str, list[float]] = {}
        not_finite = None
        for index, (row, names) in enumerate(zip(rows, self._reported, strict=True)):
            for name, value in zip(names, row, strict=False):  # a row has more columns than a step has terms
                values.setdefault(name, []).append(value)
                if not_finite is None and not math.isfinite(value):
                    not_finite = (index, name, value)
        self._position.zero_()
        self._reported = []
        return Reading(len(rows), {name: sum(v) / len(v) for name, v in values.items()}, not_finite)
