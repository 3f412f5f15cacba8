"""The error measure for exported and accelerated networks."""

import math
from collections.abc import Sequence

from torch import Tensor


def largest_error(results: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """The largest difference between results and expected values, relative to the largest expected value.

    Args:
        results: on any device.
        expected: as many tensors.

    Returns:
        The maximum over all results: 0 if all are equal, NaN if there is a NaN, infinity if shapes differ.
    """
    worst = 0.0
    for y, exact in zip(results, expected, strict=True):
        if y.shape != exact.shape:
            return math.inf
        if not y.numel():
            continue
        difference, size = (y.detach().to(exact.device) - exact.detach()).abs().max(), exact.detach().abs().max()
        error = (difference / size).item() if difference != 0 else 0.0  # size may be 0
        if math.isnan(error):  # `max` would drop it
            return math.nan
        worst = max(worst, error)
    return worst
