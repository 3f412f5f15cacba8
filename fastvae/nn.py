"""Replication-padded convolution as a torch module."""

from torch import Tensor, nn

from fastvae.kernels import replicate_conv2d


class ReplicationConv2d(nn.Conv2d):
    """3x3 convolution, stride 1, replication padding 1, optionally after nearest-neighbour x2 upsampling.

    Keys and values of the `state_dict` are those of `torch.nn.Conv2d(padding_mode="replicate")`.

    Args:
        in_channels, out_channels: channel counts, > 0.
        upsample: 1, or 2 to upsample x before the padding.
        bias: whether there is a bias.
    """

    def __init__(self, in_channels: int, out_channels: int, *, upsample: int = 1, bias: bool = True):
        super().__init__(in_channels, out_channels, 3, padding=1, padding_mode="replicate", bias=bias)
        self.upsample = upsample

    def forward(self, x: Tensor) -> Tensor:
        """[B, in_channels, H, W] -> [B, out_channels, upsample * H, upsample * W]."""
        return replicate_conv2d(x, self.weight, self.bias, upsample=self.upsample)

    def extra_repr(self) -> str:
        return f"{self.in_channels}, {self.out_channels}, upsample={self.upsample}"
