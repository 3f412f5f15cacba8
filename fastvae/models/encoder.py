"""The encoder: image -> mean and log-variance of q(z|x)."""

from itertools import pairwise

import torch
from torch import Tensor, nn

from fastvae.models.blocks import DownsamplingStage
from fastvae.models.image_conv import ImageConv2d
from fastvae.models.linear import Linear
from fastvae.models.stages import stages_of


class Encoder(nn.Module):
    """Downsampling stages, then one linear layer each for the mean and the log-variance.

    Source: Hou et al., section 3.2 and figure 2, which has four for 64x64; see `fastvae.models.stages`.

    Args:
        image_size: height and width of the images.
        width: channels of the first stage; later stages have 2, 4, and from then on 8 times as many.
        latent: dimensions of z.
        stages: how many; None: by the image size.
    """

    def __init__(self, image_size: int = 64, width: int = 32, latent: int = 100, stages: int | None = None):
        super().__init__()
        widths, side = stages_of(image_size, width, stages)
        self.stages = nn.Sequential(
            DownsamplingStage(3, width, ImageConv2d(3, width, 4, stride=2, padding=1, bias=False)),
            *(DownsamplingStage(i, o) for i, o in pairwise(widths)),
        )
        features = widths[-1] * side**2
        self.mean = Linear(features, latent)
        self.log_variance = Linear(features, latent)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images [B, 3, H, W] in [-1, 1] -> mean and log-variance, each [B, latent]."""
        features = torch.flatten(self.stages(images), 1)
        return self.mean(features), self.log_variance(features)
