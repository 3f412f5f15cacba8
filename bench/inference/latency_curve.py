"""Latency against batch: a line for each contender's median, a band up to its 99th percentile."""

from collections.abc import Sequence
from pathlib import Path

from bench.inference.contenders import VERBS
from bench.measuring.row import Row
from fastvae.charts import pyplot, save_chart

plt = pyplot()


def draw(rows: Sequence[Row], title: str, path: Path) -> None:
    """Writes a PNG: a panel for each verb, without host copies above and with them below.

    Args:
        rows: of one machine.
        title: the machine.
        path: of the picture.
    """
    names = list(dict.fromkeys(row.contender for row in rows))
    colours = dict(zip(names, plt.get_cmap("tab10").colors * 2, strict=False))
    verbs = [verb for verb in VERBS if any(row.job["verb"] == verb for row in rows)]
    figure, axes = plt.subplots(
        2, len(verbs), figsize=(4 * len(verbs) + 2, 7), dpi=110, layout="constrained", sharey=True, squeeze=False
    )
    for row_of_axes, host_copies in zip(axes, (False, True), strict=True):
        for panel, verb in zip(row_of_axes, verbs, strict=True):
            of_panel = [row for row in rows if row.job["verb"] == verb and row.job["host_copies"] == host_copies]
            for name in names:
                curve = sorted((row for row in of_panel if row.contender == name), key=lambda row: row.job["batch"])
                batches = [row.job["batch"] for row in curve]
                medians, slow = [row.median for row in curve], [row.details["p99_ms"] for row in curve]
                style = "-" if curve and curve[0].is_ours else "--"
                panel.plot(batches, medians, style, marker="o", markersize=4, color=colours[name], label=name)
                panel.fill_between(batches, medians, slow, color=colours[name], alpha=0.15, linewidth=0)
            panel.set(xscale="log", yscale="log", title=verb + (", host to host" if host_copies else ", on the device"))
            ticks = sorted({row.job["batch"] for row in rows})
            panel.set_xticks(ticks, [str(tick) for tick in ticks], minor=False)
            panel.minorticks_off()
            panel.grid(alpha=0.3, which="both", linewidth=0.5)
    for panel in axes[-1]:
        panel.set_xlabel("images a call")
    for row_of_axes in axes:
        row_of_axes[0].set_ylabel("latency, ms (median to p99)")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=8)
    figure.suptitle(title)
    save_chart(figure, path)
