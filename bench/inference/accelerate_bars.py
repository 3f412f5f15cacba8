"""Bars of latency by contender, one panel for each batch size."""

from collections.abc import Sequence
from pathlib import Path

import torch

from bench.inference.accelerate_contenders import PEERS, dtype_of
from bench.measuring.row import Row
from fastvae.charts import pyplot, save_chart

plt = pyplot()

# Of ours, of the peers and of the other designs; dark figures can be read on all of them.
_COLOURS = {
    torch.float32: ("tab:orange", "0.75", "navajowhite"),
    torch.bfloat16: ("cornflowerblue", "lightsteelblue", "aliceblue"),
}


def draw(rows: Sequence[Row], title: str, path: Path) -> None:
    """Writes a PNG: medians as bars with their numbers, a mark at the 99th percentile; bfloat16 in blue."""
    batches, names = sorted({row.job["batch"] for row in rows}), list(dict.fromkeys(row.contender for row in rows))
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
            panel.annotate(f" {row.median:.3g}", (row.median, place), va="center", ha="right", fontsize=8, color="0.1")
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
