"""A target and whether it was met."""

from dataclasses import asdict, dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class Verdict:
    """A measured value beside what it should be.

    Attributes:
        name: what was measured, e.g. "train".
        sense: whether the value should be at most or at least the target.
        target, value: in `unit`.
        spread: first and third quartile of the value.
        unit: "h", "ms", ...; empty for a count or a ratio.
        where: the machine and how the value was obtained there, if that needs saying.
    """

    name: str
    sense: Literal["<=", ">="]
    target: float
    value: float
    spread: tuple[float, float]
    unit: str = ""
    where: str = ""

    @property
    def claim(self) -> str:
        """For example "train <= 10 h"."""
        return f"{self.name} {self.sense} {self.target:g}{self._unit}"

    @property
    def passes(self) -> bool:
        """Whether the target was met."""
        return self.value <= self.target if self.sense == "<=" else self.value >= self.target

    @property
    def margin(self) -> float | None:
        """How many times better than the target, below 1 where it fails; None where no ratio means anything."""
        if self.target <= 0 or self.value <= 0:
            return None
        return self.target / self.value if self.sense == "<=" else self.value / self.target

    @property
    def _unit(self) -> str:
        return f" {self.unit}" if self.unit else ""

    def as_json(self) -> dict[str, Any]:
        """For the record."""
        derived = {"line": str(self), "claim": self.claim, "passes": self.passes, "margin": self.margin}
        return derived | asdict(self)

    def __str__(self) -> str:
        low, high = self.spread
        line = f"{self.claim}: {'PASS' if self.passes else 'FAIL'}, {self.value:.4g}{self._unit}"
        if low != high:
            line += f" ({low:.4g} to {high:.4g})"
        if self.margin is not None:
            line += f", margin {self.margin:.3g} x"
        return f"{line}, {self.where}" if self.where else line
