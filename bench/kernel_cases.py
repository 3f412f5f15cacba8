"""The calls of each op that the shipped recipes make: what is benchmarked, tuned and compiled ahead of time."""

from collections.abc import Callable

import torch


def recipe_runs(dtype: torch.dtype) -> list[Callable[[], None]]:
    """Functions that call every op, forward and backward, as the shipped recipes do in this precision."""
    return []
