"""What is known of the paper's claims so far, and the record of it."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from bench.anatomy import picture as breakdown
from bench.anatomy.table import PartRow
from bench.measuring.ceilings import Ceilings
from bench.measuring.clock import quartiles
from bench.paper.projection import PAPERS_GPU, Verdict
from bench.reporting import record


@dataclass(frozen=True)
class Row:
    """Time of one image: of a window of steps by its images, or of a reconstruction."""

    work: str
    how: str
    median_us: float
    quartiles_us: tuple[float, float]
    p99_us: float
    samples_us: list[float]


def row(work: str, how: str, samples_s: Sequence[float]) -> Row:
    """A row from the seconds of an image."""
    low, median, high = (1e6 * s for s in quartiles(samples_s))
    p99 = torch.tensor(samples_s, dtype=torch.float64).quantile(0.99).item()
    return Row(work, how, median, (low, high), 1e6 * p99, [1e6 * s for s in samples_s])


@dataclass
class Findings:
    """Grows while things are measured, so that whatever ends the run can write it down.

    Attributes:
        ceilings: of this machine, as it runs.
        rows: times of an image.
        parts: of the step.
        verdicts: on the claims.
        facts: further entries of the record.
        notes: what was not measured or needs saying, in words.
        failures: what should have been measured and could not.
    """

    ceilings: Ceilings | None = None
    rows: list[Row] = field(default_factory=list)
    parts: list[PartRow] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def note(self, words: str) -> None:
        """Keeps and prints it."""
        self.notes.append(words)
        print(f"note: {words}")

    def write(self, path: Path) -> None:
        """The record, and beside it the picture of the step if its parts are known."""
        record.write(
            path,
            what=f"the paper's two claims on {record.machine()} and projected to a {PAPERS_GPU.name}",
            ceilings=self.ceilings,
            rows=self.rows,
            notes=[*self.notes, *self.failures],
            extra={
                "verdicts": [v.as_json() for v in self.verdicts],
                **self.facts,
                "parts": [asdict(part) for part in self.parts],
            },
        )
        if self.parts:
            title = f"{record.machine()}, batch {self.facts['batch']}, {self.facts['here']}"
            breakdown.draw(self.parts, title, path.with_suffix(".png"))
