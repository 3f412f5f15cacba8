"""The 3x3 convolution of encoder and critic."""

from torch import Tensor, nn

from fastvae.kernels.conv3x3 import conv3x3


class ZeroPaddedConv3x3(nn.Conv2d):
    """3x3 convolution with zero padding. No bias, since the batch normalisation after it would cancel it."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__(in_channels, out_channels, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[B, I, H, W] -> [B, O, H, W]."""
        return conv3x3(x, self.weight)
