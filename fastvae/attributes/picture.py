"""Accuracy of each attribute beside the majority baseline and the paper, and balanced accuracy."""

from pathlib import Path
from textwrap import fill
from typing import Any

import numpy as np

from fastvae.attributes.recognise import Recognition
from fastvae.attributes.report import Paper
from fastvae.charts import pyplot, save_chart

_OURS, _BASELINE, _PAPER = "tab:orange", "0.72", "black"


def draw(recognition: Recognition, paper: Paper, title: str, path: Path, **options: Any) -> None:
    """Writes a PNG with a row for each attribute, the one that gains most over the baseline on top.

    `options` are those of matplotlib's `savefig`.

    Raises:
        FastvaeError: matplotlib is not installed, or it cannot be written.
    """
    plt = pyplot()
    # From the bottom up, which is how matplotlib counts.
    results = sorted(recognition.results, key=lambda result: result.accuracy - result.majority_accuracy)
    places = np.arange(len(results))
    ours, majority, balanced = (
        100 * np.array([getattr(result, score) for result in results])
        for score in ("accuracy", "majority_accuracy", "balanced_accuracy")
    )
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(10, 2 + 0.24 * len(results)), dpi=110, layout="constrained", sharey=True, width_ratios=(3, 2)
    )
    left.barh(places + 0.2, ours, 0.4, color=_OURS, label=f"these features, {ours.mean():.2f} on average")
    left.barh(
        places - 0.2, majority, 0.4, color=_BASELINE, label=f"majority of the training images, {majority.mean():.2f}"
    )
    published = np.array([paper.get(result.name, {}).get("VAE-WGAN", np.nan) for result in results])
    if np.isfinite(published).any():
        label = f"the paper's VAE-WGAN, {np.nanmean(published) + 1e-9:.2f}"
        left.plot(published, places, "D", color=_PAPER, markersize=3.5, label=label)
    low = np.nanmin([ours, majority, published])
    left.set(xlim=(max(0, 10 * np.floor(low / 10) - 5), 100), title="accuracy, %", ylim=(-0.7, len(results) - 0.3))
    left.set_yticks(places, [result.name.replace("_", " ") for result in results])
    right.barh(places, balanced, 0.6, color=_OURS)
    right.axvline(50, color=_PAPER, linewidth=1, linestyle=":")
    right.text(50.6, -0.6, "chance", fontsize="x-small", va="bottom")
    right.set(xlim=(min(40, balanced.min()), 100), title=f"balanced accuracy, %: {balanced.mean():.2f} on average")
    for panel in (left, right):
        panel.grid(axis="x", alpha=0.3, linewidth=0.5)
        panel.set_axisbelow(True)
        panel.title.set_fontsize("medium")
        panel.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=3, fontsize="small", frameon=False)
    figure.suptitle(fill(title, 105), fontsize="medium")
    save_chart(figure, path, **options)
