"""A target and whether it was met."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Verdict:
    """A measured value beside what it should be. `sense` is "<=" or ">="; `spread` its quartiles."""

    claim: str
    sense: str
    target: float
    value: float
    spread: tuple[float, float]

    @property
    def passes(self) -> bool:
        """Whether the target was met."""
        return self.value <= self.target if self.sense == "<=" else self.value >= self.target

    def __str__(self) -> str:
        low, high = self.spread
        words = f"{self.claim} {self.sense} {self.target:g}: {'pass' if self.passes else 'FAIL'}, {self.value:.3g}"
        if low != high:
            words += f" ({low:.3g} to {high:.3g})"
        if self.target <= 0 or self.value <= 0:  # no ratio means anything there
            return words
        margin = self.target / self.value if self.sense == "<=" else self.value / self.target
        return f"{words}, margin {margin:.2f} x"
