"""One contender's samples, as every suite keeps and records them."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from bench.measuring.clock import quartiles
from bench.measuring.ours import is_ours

Unit = Literal["s", "ms", "us", "images_per_s"]
# How many of the unit make a second, for units of time; and decimals in the record.
_IN_A_SECOND = {"s": 1.0, "ms": 1e3, "us": 1e6}
_DECIMALS = {"s": 7, "ms": 5, "us": 3, "images_per_s": 1}


@dataclass(frozen=True)
class Row:
    """What one contender took for one job.

    Attributes:
        contender: its name.
        unit: of the samples.
        samples: in the order in which they were taken.
        job: what all contenders had to do, e.g. {"verb": "encode", "batch": 8}.
        details: what else is known of this contender, e.g. {"first_call_s": 0.3}; keys end in their unit.
    """

    contender: str
    unit: Unit
    samples: list[float]
    job: dict[str, Any] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_seconds(
        cls, contender: str, seconds: Iterable[float], unit: Unit, *, job: dict[str, Any], details: dict[str, Any]
    ) -> "Row":
        """The row of samples in seconds, converted to a unit of time."""
        return cls(contender, unit, [_IN_A_SECOND[unit] * s for s in seconds], job, details)

    @property
    def is_ours(self) -> bool:
        """Whether it is one of fastvae's."""
        return is_ours(self.contender)

    @cached_property
    def _quartiles(self) -> tuple[float, float, float]:
        return quartiles(self.samples)

    @property
    def median(self) -> float:
        """In `unit`."""
        return self._quartiles[1]

    @property
    def quartiles(self) -> tuple[float, float]:
        """The first and the third, in `unit`."""
        return self._quartiles[0], self._quartiles[2]

    @property
    def seconds(self) -> list[float]:
        """The samples of a unit of time in seconds."""
        return [sample / _IN_A_SECOND[self.unit] for sample in self.samples]

    def as_json(self) -> dict[str, Any]:
        """For the record: job and details as entries of their own; samples and quartiles are named with their unit."""
        decimals, is_rate = _DECIMALS[self.unit], self.unit not in _IN_A_SECOND
        return {
            "contender": self.contender,
            **self.job,
            **self.details,
            self.unit if is_rate else f"median_{self.unit}": round(self.median, decimals),
            f"quartiles_{self.unit}": [round(q, decimals) for q in self.quartiles],
            f"samples_{self.unit}": [round(sample, decimals) for sample in self.samples],
        }
