"""How far results are from what they should be: the one measure that exported and accelerated networks are held to."""

import math
from collections.abc import Sequence

from torch import Tensor


def largest_error(found: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """The largest difference between results and what they should be, of the largest value; the worst result's.

    Args:
        found: results, on any device.
        expected: as many.

    Returns:
        0 where all are the same, NaN where one holds a NaN, infinite where a shape is another one.
    """
    worst = 0.0
    for y, exact in zip(found, expected, strict=True):
        if y.shape != exact.shape:
            return math.inf
        if not y.numel():
            continue
        difference, size = (y.detach().to(exact.device) - exact.detach()).abs().max(), exact.detach().abs().max()
        error = (difference / size).item() if difference != 0 else 0.0  # all may be zeros
        if math.isnan(error):  # which `max` would not keep
            return math.nan
        worst = max(worst, error)
    return worst
