"""Bars of latency by contender, one panel for each batch size."""

from collections.abc import Sequence
from pathlib import Path

from bench.inference.accelerate_contenders import ACCELERATE, PEERS
from bench.measuring.row import Row
from fastvae.charts import pyplot, save_chart

plt = pyplot()


def draw(rows: Sequence[Row], title: str, path: Path) -> None:
    """Writes a PNG: medians as bars with their numbers, a mark at the 99th percentile; fastvae's in colour."""
    batches = sorted({row.job["batch"] for row in rows})
    figure, axes = plt.subplots(
        1, len(batches), figsize=(6.5 * len(batches), 4.2), dpi=110, layout="constrained", squeeze=False, sharey=True
    )
    for panel, batch in zip(axes[0], batches, strict=True):
        of_batch = [row for row in rows if row.job["batch"] == batch]
        for place, row in enumerate(of_batch):
            peer = row.contender in PEERS
            colour = "tab:orange" if row.contender == ACCELERATE else "0.75" if peer else "navajowhite"
            panel.barh(place, row.median, color=colour)
            if row.details["p99_ms"]:
                panel.plot([row.details["p99_ms"]], [place], "|", color="0.3", markersize=11)
            panel.annotate(f" {row.median:.3g}", (row.median, place), va="center", ha="right", fontsize=8, color="0.1")
        panel.set_yticks(range(len(of_batch)), [row.contender for row in of_batch])
        panel.set(
            title=f"{batch} image{'s' if batch > 1 else ''} a call",
            xlabel="ms: median" + (", and a mark at p99" if any(r.details["p99_ms"] for r in of_batch) else ""),
        )
        panel.grid(alpha=0.3, axis="x", linewidth=0.5)
        panel.set_axisbelow(True)
    axes[0][0].invert_yaxis()
    figure.suptitle(f"Reconstruct on {title}")
    save_chart(figure, path)
