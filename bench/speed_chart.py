"""The chart of README.md: for each suite how many times as fast fastvae is as its best peer."""

import json
from collections.abc import Sequence
from pathlib import Path

from bench.reporting.drawn_of import is_drawn_of, text_entry
from bench.tables import Headline
from fastvae.charts import pyplot, save_chart

plt = pyplot()

_FASTER, _SLOWER, _INK, _MUTED = "#5b9bd5", "#c3d3e2", "#222222", "#6a6a6a"


def draw(machine: str, headlines: Sequence[Headline], path: Path) -> None:
    """Writes the PNG.

    Args:
        machine: that was measured.
        headlines: a bar for each, from top to bottom.
        path: of the picture.
    """
    figure, axes = plt.subplots(figsize=(9, 1.75 + 0.6 * len(headlines)), dpi=120)
    places = range(len(headlines))
    ratios = [headline.ratio for headline in headlines]
    widest = max(1.0, *(headline.high for headline in headlines))
    axes.barh(places, ratios, height=0.56, color=[_FASTER if ratio >= 1 else _SLOWER for ratio in ratios], zorder=2)
    axes.axvline(1, ymax=0.955, color=_INK, linewidth=1.1, linestyle=(0, (4, 3)), zorder=3)
    beside = []
    for place, headline in zip(places, headlines, strict=True):
        spread = [[headline.ratio - headline.low], [headline.high - headline.ratio]]
        axes.errorbar(headline.ratio, place, xerr=spread, color=_INK, linewidth=1.3, capsize=3, zorder=4)
        _label(axes, f"{headline.ratio:.2f} ×", max(headline.high, 1.0), place, (9, 0), 11, _INK, "bold")
        beside.append(_label(axes, headline.title.replace("`", ""), 0, place, (-10, 7), 10.5, _INK))
        beside.append(_label(axes, f"against {headline.peer}", 0, place, (-10, -8), 8.5, _MUTED))
    axes.annotate("best peer", (1, -0.8), ha="center", va="center", fontsize=9, color=_INK)
    axes.set_yticks([])
    axes.set(xlim=(0, widest * 1.15), ylim=(len(headlines) - 0.5, -0.95))
    axes.set_xlabel("times as fast as the best peer (longer is better)", fontsize=10, color=_INK)
    axes.tick_params(axis="x", labelsize=9, length=0)
    axes.grid(axis="x", alpha=0.25, linewidth=0.6, zorder=0)
    for side in ("top", "right", "bottom"):
        axes.spines[side].set_visible(False)
    figure.text(
        0.02, 0.93, "Speed of fastvae, as a multiple of its best peer's", fontsize=14, fontweight="bold", color=_INK
    )
    figure.text(0.02, 0.875, f"Measured on: {machine}", fontsize=10, color=_MUTED)
    note = (
        "Black lines: quartiles; where a bar stands for several cases (inference, single ops), the worst and the best."
    )
    figure.text(0.02, 0.025, note, fontsize=8, color=_MUTED)
    left = max(label.get_window_extent().width for label in beside) / figure.bbox.width
    figure.subplots_adjust(left=0.04 + left, right=0.97, top=0.83, bottom=0.17)
    save_chart(figure, path, metadata=text_entry(_content(machine, headlines)))


def _label(axes, text: str, x: float, y: float, offset: tuple[int, int], size: float, colour: str, weight="normal"):
    """Text beside a point: to its left or to its right, as the offset in points goes."""
    return axes.annotate(
        text,
        (x, y),
        xytext=offset,
        textcoords="offset points",
        ha="left" if offset[0] > 0 else "right",
        va="center",
        fontsize=size,
        fontweight=weight,
        color=colour,
        annotation_clip=False,
    )


def shows(path: Path, machine: str, headlines: Sequence[Headline]) -> bool:
    """Whether the picture at `path` was drawn of these."""
    return is_drawn_of(path, _content(machine, headlines))


def _content(machine: str, headlines: Sequence[Headline]) -> str:
    return json.dumps([machine, *headlines])
