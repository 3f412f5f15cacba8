"""The filters' side of Winograd's minimal filtering; `native/transforms.h` has the sides of inputs and outputs."""

import math

import torch
from torch import Tensor

# By tile size and taps, the points other than infinity at which `transforms.h` interpolates.
_POINTS = {
    (2, 3): (0, 1, -1),
    (4, 3): (0, 5 / 8, -5 / 8, 3 / 2, -3 / 2),
    (4, 2): (1 / 2, -1 / 2, 5 / 4, -5 / 4),
}


def filter_transform(tile: int, taps: int = 3) -> Tensor:
    """G of F(tile, taps): a filter's polynomial at each point, over the product of the distances to the others.

    Source: Lavin and Gray 2016, arXiv:1509.09308, section 4.

    Args:
        tile: outputs along one axis, 2 or 4.
        taps: of a filter along one axis, 3, or 2 with a tile of 4.

    Returns:
        float64 [tile + taps - 1, taps], on the CPU.
    """
    points = _POINTS[tile, taps]
    rows = [[p**k / math.prod(p - other for other in points if other != p) for k in range(taps)] for p in points]
    infinity = [0] * (taps - 1) + [1]
    return torch.tensor([*rows, infinity], dtype=torch.float64, device="cpu")
