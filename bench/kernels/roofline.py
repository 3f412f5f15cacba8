"""A roofline: what each op reaches, under what its arithmetic and its traffic allow on this machine.

Source: Williams, Waterman, Patterson 2009, "Roofline: an insightful visual performance model".
"""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np

from bench.kernels.comparison import Row
from bench.measuring.ceilings import Ceilings

_COLOURS = {
    "replicate_conv2d": "tab:blue",
    "feature_loss": "tab:orange",
    "critic_update": "tab:green",
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
    intensities = [row.flops_per_byte for row in rows]
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
    for op, colour in _COLOURS.items():
        for ours in (True, False):
            best = _fastest([row for row in rows if row.op == op and row.is_ours == ours])
            axes.scatter(
                [row.flops_per_byte for row in best],
                [row.tflop_per_s for row in best],
                facecolors=colour if ours else "none",
                edgecolors=colour,
                label=f"{op}, {'fastvae' if ours else 'best peer'}" if best else None,
            )
    axes.set(xscale="log", yscale="log", xlabel="FLOP per byte (least possible)", ylabel="TFLOP/s", title=title)
    axes.grid(alpha=0.3, which="both", linewidth=0.5)
    axes.legend(fontsize=8, loc="lower right")
    figure.savefig(path)
    plt.close(figure)


def _fastest(rows: list[Row]) -> list[Row]:
    """Of each case the contender with the least median."""
    best = {}
    for row in rows:
        key = (row.case, row.work, row.dtype)
        if key not in best or row.median_us < best[key].median_us:
            best[key] = row
    return list(best.values())
