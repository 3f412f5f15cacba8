"""The filters' side of Winograd's minimal filtering; `native/transforms.h` has the sides of inputs and outputs."""

import math

import torch
from torch import Tensor

# By tile size, the points other than infinity at which `transforms.h` interpolates.
_POINTS = {2: (0, 1, -1), 4: (0, 5 / 8, -5 / 8, 3 / 2, -3 / 2)}


def filter_transform(tile: int) -> Tensor:
    """G of F(tile, 3): a filter's polynomial at each point, over the product of the distances to the others.

    Source: Lavin and Gray 2016, arXiv:1509.09308, section 4.

    Args:
        tile: outputs along one axis, 2 or 4.

    Returns:
        float64 [tile + 2, 3], on the CPU.
    """
    points = _POINTS[tile]
    rows = [[power / math.prod(p - other for other in points if other != p) for power in (1, p, p * p)] for p in points]
    return torch.tensor([*rows, [0, 0, 1]], dtype=torch.float64, device="cpu")
