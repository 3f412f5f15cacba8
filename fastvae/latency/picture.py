"""Plots latency against batch size, accelerated and plain."""

from collections.abc import Sequence
from pathlib import Path
from textwrap import fill

from fastvae.charts import pyplot, save_chart
from fastvae.latency.measure import Cell


def draw(cells: Sequence[Cell], title: str, path: Path) -> None:
    """Writes a PNG with a panel for each verb: medians as lines, with bands up to the 99th percentile.

    Raises:
        FastvaeError: matplotlib is not installed, or the file cannot be written.
    """
    plt = pyplot()
    verbs = list(dict.fromkeys(cell.verb for cell in cells))
    figure, axes = plt.subplots(
        1, len(verbs), figsize=(4.2 * len(verbs) + 0.8, 4), dpi=110, layout="constrained", sharey=True, squeeze=False
    )
    for panel, verb in zip(axes[0], verbs, strict=True):
        of_verb = sorted((cell for cell in cells if cell.verb == verb), key=lambda cell: cell.batch)
        batches = [cell.batch for cell in of_verb]
        for name, colour in (("plain", "0.45"), ("accelerated", "tab:orange")):
            latencies = [getattr(cell, name) for cell in of_verb]
            panel.plot(batches, [latency.p50_ms for latency in latencies], "o-", color=colour, markersize=4, label=name)
            panel.fill_between(
                batches,
                [latency.p50_ms for latency in latencies],
                [latency.p99_ms for latency in latencies],
                color=colour,
                alpha=0.2,
                linewidth=0,
            )
        panel.set(xscale="log", yscale="log", title=verb, xlabel="images per call")
        panel.set_xticks(batches, [str(batch) for batch in batches])
        panel.minorticks_off()
        panel.grid(alpha=0.3, which="both", linewidth=0.5)
    axes[0][0].set_ylabel("ms: median, and up to p99")
    axes[0][0].legend()
    figure.suptitle(fill(title, 55 * len(verbs)), fontsize="medium")
    save_chart(figure, path)
