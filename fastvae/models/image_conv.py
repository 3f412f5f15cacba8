"""The first convolution of a network whose input is an image."""

import torch
from torch import Tensor, nn

from fastvae.kernels.layout import ALIGNED_CHANNELS, with_channels


class ImageConv2d(nn.Conv2d):
    """`nn.Conv2d`; in half precision on a GPU image and weight get zero channels up to eight.

    With three channels the convolution's kernels are slow ones, or copy their operands first. Compiled, the kernel that
    converts the pixels writes the zeros, too.
    """

    def forward(self, x: Tensor) -> Tensor:
        """[B, I, H, W] -> [B, O, H', W']."""
        if not _in_half_precision(x):
            return super().forward(x)
        x, weight = (with_channels(t, ALIGNED_CHANNELS) for t in (x, self.weight))
        return self._conv_forward(x, weight, self.bias)


def _in_half_precision(x: Tensor) -> bool:
    dtype = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else x.dtype
    return x.is_cuda and dtype in (torch.bfloat16, torch.float16)
