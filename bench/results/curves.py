"""The learning curves of a run, thinned, from its stats.jsonl."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from fastvae.errors import FastvaeError

POINTS = 100
# What every line has, and no curve is needed of.
_OTHER = {"step", "epoch", "seconds", "images_per_s", "lr", "ranks"}


def curves(lines: Iterable[Mapping[str, Any]], points: int = POINTS) -> dict[str, dict[str, list[float]]]:
    """Each number that the lines have, over the steps.

    Of a curve of more than `points` numbers, as many means of neighbours remain, each at the last step of its numbers.

    Args:
        lines: of stats.jsonl.
        points: at most so many for each curve.

    Returns:
        {"kl": {"curve_step": [...], "curve_value": [...]}, ...}; values to five digits.

    Raises:
        FastvaeError: a number is NaN or infinite.
    """
    found: dict[str, list[tuple[int, float]]] = {}
    for line in lines:
        for name in line.keys() - _OTHER:
            # A run writes null for what is not finite.
            if line[name] is None or not math.isfinite(line[name]):
                raise FastvaeError(f"stats.jsonl: {name} is not finite at step {line['step']}: did the run diverge?")
            found.setdefault(name, []).append((line["step"], line[name]))
    return {name: _thinned(found[name], points) for name in sorted(found)}


def _thinned(curve: list[tuple[int, float]], points: int) -> dict[str, list[float]]:
    size = math.ceil(len(curve) / points)
    parts = [curve[start : start + size] for start in range(0, len(curve), size)]
    means = [sum(value for _, value in part) / len(part) for part in parts]
    return {"curve_step": [part[-1][0] for part in parts], "curve_value": [float(f"{mean:.5g}") for mean in means]}
