"""The convolutions of encoder and critic."""

from torch import Tensor, nn

from fastvae.kernels import zero_padded_conv2d


class ZeroPaddedConv2d(nn.Conv2d):
    """Convolution with a border of one zero, 3x3, or 4x4 at stride 2; no bias, which the BN after it would cancel.

    On a CPU differentiable once: see `zero_padded_conv2d` for a gradient penalty.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1):
        super().__init__(in_channels, out_channels, {1: 3, 2: 4}[stride], stride, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[B, I, H, W] -> [B, O, H / stride, W / stride]."""
        return zero_padded_conv2d(x, self.weight, self.stride[0])
