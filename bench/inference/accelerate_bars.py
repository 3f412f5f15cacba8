"""Bars of latency by contender, one panel for each batch size."""

from collections.abc import Sequence
from pathlib import Path

import torch

from bench.inference.accelerate_contenders import CONTENDERS, PEERS, dtype_of
from bench.measuring.row import Row
from fastvae.charts import pyplot, save_chart

plt = pyplot()

# Of ours, of the peers and of the other designs.
_COLOURS = {
    torch.float32: ("tab:orange", "0.75", "navajowhite"),
    torch.bfloat16: ("cornflowerblue", "lightsteelblue", "aliceblue"),
}


def draw(rows: Sequence[Row], title: str, path: Path) -> None:
    """Writes a PNG: medians as bars with their numbers, a mark at the 99th percentile; bfloat16 in blue."""
    batches, timed = sorted({row.job["batch"] for row in rows}), {row.contender for row in rows}
    names = [name for name in CONTENDERS if name in timed]
    size = (6.5 * len(batches), max(4.2, 1.2 + 0.3 * len(names)))
    figure, axes = plt.subplots(
        1, len(batches), figsize=size, dpi=110, layout="constrained", squeeze=False, sharey=True
    )
    for panel, batch in zip(axes[0], batches, strict=True):
        of_batch = [row for row in rows if row.job["batch"] == batch]
        for row in of_batch:
            place = names.index(row.contender)
            ours, peers, others = _COLOURS[dtype_of(row.contender)]
            panel.barh(place, row.median, color=ours if row.is_ours else peers if row.contender in PEERS else others)
            if row.details["p99_ms"]:
                panel.plot([row.details["p99_ms"]], [place], "|", color="0.3", markersize=11)
            # Beside the bar: the fastest are too short for their number.
            end = max(row.median, row.details["p99_ms"] or 0.0)
            panel.annotate(f"  {row.median:.3g}", (end, place), va="center", ha="left", fontsize=8, color="0.1")
        panel.margins(x=0.12)
        panel.set_yticks(range(len(names)), names)
        panel.set(
            title=f"{batch} image{'s' if batch > 1 else ''} a call",
            xlabel="ms: median" + (", and a mark at p99" if any(r.details["p99_ms"] for r in of_batch) else ""),
        )
        panel.grid(alpha=0.3, axis="x", linewidth=0.5)
        panel.set_axisbelow(True)
    axes[0][0].invert_yaxis()
    figure.suptitle(f"Reconstruct on {title}")
    save_chart(figure, path)
