"""Building blocks of encoder, decoder and critic."""

from collections.abc import Callable

from torch import Tensor, nn

from fastvae.models.batch_norm import BatchNorm2d
from fastvae.models.zero_padded_conv import ZeroPaddedConv2d

NEGATIVE_SLOPE = 0.2

Conv3x3 = Callable[[int, int], nn.Module]


class ResidualBlock(nn.Module):
    """y = LeakyReLU(x + BN(conv(LeakyReLU(BN(conv(x)))))), two 3x3 convolutions of the same width.

    Source: Hou et al., section 3.2, after He et al. 2016.
    """

    def __init__(self, channels: int, conv3x3: Conv3x3 = ZeroPaddedConv2d):
        super().__init__()
        self.conv1 = conv3x3(channels, channels)
        self.bn1 = BatchNorm2d(channels)
        self.conv2 = conv3x3(channels, channels)
        self.bn2 = BatchNorm2d(channels)
        self.activation = nn.LeakyReLU(NEGATIVE_SLOPE)

    def forward(self, x: Tensor, batches: int = 1) -> Tensor:
        """[B, C, H, W] -> [B, C, H, W]; `batches` as in `BatchNorm2d`."""
        y = self.bn1(self.conv1(x), batches, self.activation)
        return self.bn2(self.conv2(y), batches, self.activation, residual=x)


class DownsamplingStage(nn.Sequential):
    """4x4 convolution of stride 2, BN, LeakyReLU, residual block.

    Args:
        in_channels, out_channels: of the convolution.
        conv: the convolution, if not `ZeroPaddedConv2d`.
    """

    def __init__(self, in_channels: int, out_channels: int, conv: nn.Conv2d | None = None):
        super().__init__(
            ZeroPaddedConv2d(in_channels, out_channels, stride=2) if conv is None else conv,
            BatchNorm2d(out_channels),
            nn.LeakyReLU(NEGATIVE_SLOPE),
            ResidualBlock(out_channels),
        )

    def forward(self, x: Tensor, batches: int = 1) -> Tensor:
        """[B, I, H, W] -> [B, O, H/2, W/2]; `batches` as in `BatchNorm2d`."""
        return self.after_convolution(self[0](x), batches)

    def after_convolution(self, x: Tensor, batches: int = 1) -> Tensor:
        """Everything after the first convolution: [B, O, H/2, W/2] -> the same shape."""
        _, norm, activation, block = self
        return block(norm(x, batches, activation), batches)
