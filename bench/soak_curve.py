"""Memory of a process against the calls that it has answered."""

from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt

if TYPE_CHECKING:
    from bench.bench_soak import Row


def draw(rows: list["Row"], title: str, path: Path) -> None:
    """Writes a PNG, with the memory's axis from zero: a leak should look like one, and breathing not."""
    figure, panel = plt.subplots(figsize=(7, 3.6), dpi=110, layout="constrained")
    panel.plot([row.calls for row in rows], [row.memory_mib for row in rows], color="tab:orange")
    panel.set(xlabel="calls of reconstruct", ylabel="memory of the process, MiB", title=title)
    panel.set_ylim(0, 1.15 * max(row.memory_mib for row in rows))
    panel.grid(alpha=0.3, linewidth=0.5)
    figure.savefig(path)
    plt.close(figure)
