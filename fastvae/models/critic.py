"""The Wasserstein critic, whose input is the loss network's first feature map."""

import torch
from torch import Tensor, nn

from fastvae.models.blocks import DownsamplingStage
from fastvae.models.stages import stages_of
from fastvae.models.whole_map_conv import WholeMapConv2d


class Critic(nn.Module):
    """Downsampling stages, then one convolution over the remaining map to a single number.

    Source: Hou et al., section 3.2: no sigmoid, as in WGAN; the input is relu1_1 of the loss network.

    Args:
        image_size: height and width of the input map.
        width: channels of the first stage; later stages have 2, 4, and from then on 8 times as many.
        in_channels: channels of the input, 64 for relu1_1 of VGG-19.
        stages: how many; None: by the image size.
    """

    def __init__(self, image_size: int = 64, width: int = 32, in_channels: int = 64, stages: int | None = None):
        super().__init__()
        widths, side = stages_of(image_size, width, stages)
        self.stages = nn.Sequential(
            *(DownsamplingStage(i, o) for i, o in zip((in_channels, *widths[:-1]), widths, strict=True))
        )
        self.head = WholeMapConv2d(widths[-1], side)

    def forward(self, features: Tensor) -> Tensor:
        """Features [B, in_channels, H, W] -> one number per image, [B], float32 at least."""
        return self._score(self.stages(features))

    def forward_pair(self, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
        """`forward(real), forward(fake)`, also in training: each side is normalised by its own batch statistics.

        Both sides share one kernel per operation, except for the first convolution: its inputs would have to be copied
        into one tensor first, and only one side needs a gradient.

        Args:
            real, fake: features [B, in_channels, H, W].

        Returns:
            One number per image for each side, [B] each.
        """
        first, *others = self.stages
        x = first.after_convolution(torch.cat([first[0](real), first[0](fake)]), batches=2)
        for stage in others:
            x = stage(x, batches=2)
        return self._score(x).chunk(2)

    def _score(self, x: Tensor) -> Tensor:
        scores = self.head(x)
        return scores.to(torch.promote_types(scores.dtype, torch.float32))
