"""The decoder: z -> image."""

from itertools import pairwise

import torch
from torch import Tensor, nn

from fastvae.kernels.dispatch import map_format
from fastvae.models.batch_norm import BatchNorm2d
from fastvae.models.blocks import NEGATIVE_SLOPE, ResidualBlock
from fastvae.models.linear import Linear
from fastvae.models.stages import stages_of
from fastvae.nn import ReplicationConv2d


def _conv3x3(in_channels: int, out_channels: int) -> ReplicationConv2d:
    return ReplicationConv2d(in_channels, out_channels, bias=False)


class _UpsamplingStage(nn.Sequential):
    """Nearest x2 upsampling, 3x3 convolution, BN, LeakyReLU, residual block."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__(
            ReplicationConv2d(in_channels, out_channels, upsample=2, bias=False),
            BatchNorm2d(out_channels),
            nn.LeakyReLU(NEGATIVE_SLOPE),
            ResidualBlock(out_channels, _conv3x3),
        )

    def forward(self, x: Tensor) -> Tensor:
        """[B, I, H, W] -> [B, O, 2H, 2W]."""
        conv, norm, activation, block = self
        return block(norm(conv(x), activation=activation))


class Decoder(nn.Module):
    """Linear layer to a small map, then stages of nearest x2 upsampling and replication-padded 3x3 convolution, tanh.

    Source: Hou et al., section 3.2 and figure 2, which has four stages for 64x64; see `fastvae.models.stages`. Every
    stage but the last is followed by BN, LeakyReLU and a residual block.

    Args:
        image_size: height and width of the images.
        width: channels before the last convolution; earlier stages have 2, 4, and before them 8 times as many.
        latent: dimensions of z.
        stages: how many; None: by the image size.
    """

    def __init__(self, image_size: int = 64, width: int = 32, latent: int = 100, stages: int | None = None):
        super().__init__()
        widths, side = stages_of(image_size, width, stages)
        self.map_shape = (widths[-1], side, side)
        self.linear = Linear(latent, widths[-1] * side**2)
        self.stages = nn.Sequential(*(_UpsamplingStage(i, o) for i, o in pairwise(reversed(widths))))
        self.to_image = ReplicationConv2d(width, 3, upsample=2)

    @torch.no_grad()
    def start_grey_(self) -> None:
        """Gives the last layer's three colours the same filters, the mean of its initial ones.

        For losses that do not see fine colour: what random filters paint in it at first, they paint for long.
        """
        weight = self.to_image.weight
        weight.copy_(weight.mean(0, keepdim=True).expand_as(weight))

    def forward(self, z: Tensor) -> Tensor:
        """z [B, latent] -> images [B, 3, H, W] in [-1, 1]."""
        x = torch.relu(self.linear(z)).unflatten(1, self.map_shape)
        # Otherwise, compiled for the CPU, the next convolution chooses a layout that every later one has to copy.
        x = x.contiguous(memory_format=map_format(x.device))
        return torch.tanh(self.to_image(self.stages(x)))
