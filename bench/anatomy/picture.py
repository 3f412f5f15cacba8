"""A picture of the step by part: what each takes, and the least that this machine would let it take."""

from collections.abc import Sequence
from pathlib import Path

from bench.anatomy.table import STEP, PartRow
from fastvae.charts import pyplot, save_chart

plt = pyplot()


def draw(rows: Sequence[PartRow], title: str, path: Path) -> None:
    """Writes a PNG: a bar for each part, in the order of the step, with a black line at its floor.

    Args:
        rows: of one step, as `table.measure` returns them.
        title: machine and setting.
        path: of the picture.
    """
    parts = [row for row in rows if row.part != STEP]
    figure, axes = plt.subplots(figsize=(9, 0.42 * len(parts) + 1.6), dpi=110, layout="constrained")
    longest = max(row.median_us for row in rows)
    unit, scale = ("s", 1e6) if longest >= 1e6 else ("ms", 1e3) if longest >= 1e4 else ("µs", 1.0)
    places = range(len(parts))
    times = [row.median_us / scale for row in parts]
    spread = [
        [(row.median_us - row.quartiles_us[0]) / scale for row in parts],
        [(row.quartiles_us[1] - row.median_us) / scale for row in parts],
    ]
    axes.barh(places, times, xerr=spread, color="tab:blue", ecolor="tab:gray", height=0.6)
    for place, row in zip(places, parts, strict=True):
        if row.floor_us:
            axes.vlines(row.floor_us / scale, place - 0.38, place + 0.38, color="black", linewidth=2)
        of_floor = f", {100 * row.of_floor:.0f} % of floor" if row.floor_us else ""
        label = f" {row.median_us / scale:.3g} {unit}, {100 * row.share:.0f} % of the step{of_floor}"
        axes.annotate(label, (max(row.quartiles_us[1], row.floor_us, 0) / scale, place), va="center", fontsize=8)
    axes.set_yticks(places, [row.part for row in parts])
    axes.invert_yaxis()
    # Room for the labels.
    axes.set_xlim(right=1.6 * max(max(row.quartiles_us[1], row.floor_us) for row in parts) / scale)
    axes.set(xlabel=f"{unit} a step; line: floor at the measured ceilings", title=title)
    axes.grid(alpha=0.3, axis="x", linewidth=0.5)
    save_chart(figure, path)
