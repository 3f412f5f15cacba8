"""The last layer of critics and discriminators: a convolution over all of the map that is left, to one number."""

import torch.nn.functional as F
from torch import Tensor, nn


class WholeMapConv2d(nn.Conv2d):
    """`nn.Conv2d` to one number, computed as the product of two vectors for each image.

    As a convolution of one output channel it has no fast kernel: on a GPU it ran in the layout that all other layers
    avoid, with the map and its gradient copied.
    """

    def __init__(self, channels: int, size: int):
        super().__init__(channels, 1, size)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, size, size] -> one number each, [B]."""
        # In the order of channels_last, so that neither map nor weight is copied.
        x, weight = (t.permute(0, 2, 3, 1).flatten(1) for t in (x, self.weight))
        return F.linear(x, weight).flatten() + self.bias  # the bias in the product would be one more copy
