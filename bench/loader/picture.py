"""Images a second of each loader, as bars."""

from collections.abc import Sequence
from pathlib import Path

from bench.measuring.row import Row
from fastvae.charts import pyplot, save_chart

plt = pyplot()


def draw(rows: Sequence[Row], title: str, path: Path) -> None:
    """Writes a PNG: medians, with lines from the first to the third quartile.

    Args:
        rows: of one machine.
        title: machine and what was loaded.
        path: of the picture.
    """
    rows = sorted(rows, key=lambda row: row.median)
    figure, axes = plt.subplots(figsize=(9, 1 + 0.45 * len(rows)), dpi=110, layout="constrained")
    medians = [row.median for row in rows]
    errors = [
        [row.median - row.quartiles[0] for row in rows],
        [row.quartiles[1] - row.median for row in rows],
    ]
    colours = ["tab:blue" if row.is_ours else "tab:gray" for row in rows]
    bars = axes.barh([row.contender for row in rows], medians, xerr=errors, color=colours, capsize=3)
    axes.bar_label(bars, [f"{value:,.0f}" for value in medians], padding=8, fontsize=8)
    # What is decoded already comes tens of times as fast as what is not.
    axes.set(xscale="log", xlabel="images a second", title=title, xlim=(min(medians) / 2, max(medians) * 4))
    axes.grid(axis="x", alpha=0.3, which="both", linewidth=0.5)
    axes.set_axisbelow(True)
    save_chart(figure, path)
