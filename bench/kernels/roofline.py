"""A roofline: what each op reaches, under what its arithmetic and its traffic allow on this machine.

Source: Williams, Waterman, Patterson 2009, "Roofline: an insightful visual performance model".
"""

from pathlib import Path

import numpy as np

from bench.kernels.comparison import fastest_of_ours, fastest_peer
from bench.measuring.ceilings import Ceilings
from bench.measuring.row import Row
from fastvae.charts import pyplot, save_chart

plt = pyplot()

_COLOURS = {
    "replicate_conv2d": "tab:blue",
    "feature_loss": "tab:orange",
    "critic_update": "tab:green",
    "batch_norm": "tab:purple",
    "loss network": "tab:red",
}


def draw(rows: list[Row], ceilings: Ceilings, title: str, path: Path) -> None:
    """Writes a PNG: filled marks are fastvae's (the faster of eager and compiled), hollow ones the best peer's.

    Args:
        rows: of one machine.
        ceilings: measured in the same run.
        title: machine and date.
        path: of the picture.
    """
    figure, axes = plt.subplots(figsize=(9, 6), dpi=110, layout="constrained")
    intensities = [row.details["flops_per_byte"] for row in rows]
    x = np.geomspace(min(intensities) / 2, max(intensities) * 2, 200)
    for name, product in sorted(ceilings.product_tflop_per_s.items()):
        roof = np.minimum(product, x * ceilings.copy_gb_per_s / 1e3)
        axes.plot(x, roof, color="black", linewidth=1, linestyle="-" if name == "float32" else "--")
        axes.annotate(f"{name} product, {product:.3g} TFLOP/s", (x[-1], product), ha="right", va="bottom", fontsize=8)
    middle = x[len(x) // 6]
    axes.annotate(
        f"copy, {ceilings.copy_gb_per_s:.3g} GB/s",
        (middle, middle * ceilings.copy_gb_per_s / 1e3),
        ha="right",
        va="bottom",
        fontsize=8,
    )
    for op in dict.fromkeys(row.job["op"] for row in rows):
        colour = _COLOURS[op]
        by_job: dict[tuple, list[Row]] = {}
        for row in rows:
            if row.job["op"] == op:
                by_job.setdefault(tuple(row.job.values()), []).append(row)
        for fastest, label in ((fastest_of_ours, "fastvae"), (fastest_peer, "best peer")):
            shown = [row for of_job in by_job.values() if (row := fastest(of_job))]
            axes.scatter(
                [row.details["flops_per_byte"] for row in shown],
                [row.details["tflop_per_s"] for row in shown],
                facecolors=colour if label == "fastvae" else "none",
                edgecolors=colour,
                label=f"{op}, {label}" if shown else None,
            )
    axes.set(xscale="log", yscale="log", xlabel="FLOP per byte (least possible)", ylabel="TFLOP/s", title=title)
    axes.grid(alpha=0.3, which="both", linewidth=0.5)
    axes.legend(fontsize=8, loc="lower right")
    save_chart(figure, path)
