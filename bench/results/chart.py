"""The learning curves of several runs, as a picture that carries what it shows, for a test to compare."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.reporting.drawn_of import is_drawn_of, text_entry
from fastvae.charts import pyplot, save_chart

_PANELS = {
    "held_out_psnr_db": "PSNR of held-out images, dB",
    "held_out_sharpness": "their sharpness (1: as the originals)",
    "kl": "KL divergence, nats",
    "gan_to_rec": "the critic's share of the gradient",
}
# Shares of a thousandth and of a half in one picture; a divergence that begins forty times as large as it ends.
_LOGARITHMIC = {"gan_to_rec", "kl"}


def has_curves(records: Sequence[dict[str, Any]]) -> bool:
    """Whether there is anything to draw."""
    return any(key in record["curves"] for record in records for key in _PANELS)


def draw(title: str, records: Sequence[dict[str, Any]], path: Path) -> None:
    """Writes the PNG: a panel for each number that any of the runs has, over the images seen."""
    plt = pyplot()
    shown = {key: label for key, label in _PANELS.items() if any(key in record["curves"] for record in records)}
    figure, axes = plt.subplots(
        1, len(shown), figsize=(4.2 * len(shown), 3.6), dpi=100, squeeze=False, layout="constrained"
    )
    for panel, (key, label) in zip(axes[0], shown.items(), strict=True):
        for number, record in enumerate(records):
            if (curve := record["curves"].get(key)) is not None:
                seen = [step * record["images"] / record["steps"] / 1000 for step in curve["curve_step"]]
                panel.plot(seen, curve["curve_value"], label=record["name"], color=f"C{number}", linewidth=1.3)
        panel.set(title=label, xlabel="thousand images")
        panel.grid(alpha=0.25)
        if key in _LOGARITHMIC:
            panel.set_yscale("log")
    handles = {h.get_label(): h for panel in axes[0] for h in panel.get_lines()}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    figure.suptitle(title)
    save_chart(figure, path, metadata=text_entry(_content(records)))


def shows(path: Path, records: Sequence[dict[str, Any]]) -> bool:
    """Whether the picture at `path` was drawn of these."""
    return is_drawn_of(path, _content(records))


def _content(records: Sequence[dict[str, Any]]) -> str:
    """A digest of the curves that the picture shows."""
    shown = [[r["name"], r["images"], r["steps"], {k: r["curves"].get(k) for k in _PANELS}] for r in records]
    return hashlib.sha256(json.dumps(shown, sort_keys=True).encode()).hexdigest()
