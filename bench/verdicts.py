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
        margin = self.target / self.value if self.sense == "<=" else self.value / self.target
        verdict = "pass" if self.passes else "FAIL"
        found = f"{self.value:.3g} ({low:.3g} to {high:.3g})"
        return f"{self.claim} {self.sense} {self.target:g}: {verdict}, {found}, margin {margin:.2f} x"
