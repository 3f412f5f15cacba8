"""Memory of a process against the calls that it has answered."""

from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt

if TYPE_CHECKING:
    from bench.bench_soak import Row

# So that breathing by a page or two does not fill the picture.
_LEAST_SPAN_MIB = 20.0


def draw(rows: list["Row"], limit_mib: float | None, title: str, path: Path) -> None:
    """Writes a PNG.

    Args:
        rows: of one soak.
        limit_mib: what the median of the last quarter may reach, if it came to that.
        title: the machine.
        path: of the picture.
    """
    figure, panel = plt.subplots(figsize=(7, 3.6), dpi=110, layout="constrained")
    memory = [row.memory_mib for row in rows]
    panel.plot([row.calls for row in rows], memory, color="tab:orange", label="memory of the process")
    if limit_mib is not None:
        quarter = rows[-max(len(rows) // 4, 1)].calls, rows[-1].calls
        panel.plot(quarter, (limit_mib, limit_mib), "--", color="0.4", label="limit for the median of the last quarter")
    low, high = min(memory), max(*memory, limit_mib or 0)
    spare = max(_LEAST_SPAN_MIB - (high - low), 0.2 * (high - low)) / 2
    panel.set(xlabel="calls of reconstruct", ylabel="MiB", title=title, ylim=(low - spare, high + spare))
    panel.xaxis.set_major_formatter(lambda calls, _: f"{calls:,.0f}")
    panel.yaxis.get_major_formatter().set_useOffset(False)
    panel.grid(alpha=0.3, linewidth=0.5)
    panel.legend()
    figure.savefig(path)
    plt.close(figure)
