"""The two networks of DCGAN, used by the GANs that the paper compares with.

Source: Radford, Metz and Chintala 2016 (arXiv:1511.06434), sections 3 and 4: strided convolutions in place of pooling,
BN everywhere except at the image and at the output number, ReLU in the generator, LeakyReLU of slope 0.2 in the
discriminator, weights drawn from N(0, 0.02^2).
"""

from itertools import pairwise

import torch
from torch import Tensor, nn

from fastvae.models.batch_norm import BatchNorm2d
from fastvae.models.blocks import NEGATIVE_SLOPE
from fastvae.models.image_conv import ImageConv2d
from fastvae.models.stages import count_stages, stages_of
from fastvae.models.transposed_conv import TransposedConv2d
from fastvae.models.whole_map_conv import WholeMapConv2d


class DcganGenerator(nn.Module):
    """z -> image: transposed convolutions, the first to a small map, each further one to twice its side, then tanh.

    The source has five of them for 64x64; see `fastvae.models.stages`.

    Args:
        image_size: height and width of the images.
        width: channels before the last convolution, 64 in the source; earlier ones have 2, 4, and before them 8 times
            as many.
        latent: dimensions of z.
        stages: how many convolutions double the map; None: by the image size.
    """

    def __init__(self, image_size: int = 64, width: int = 64, latent: int = 100, stages: int | None = None):
        super().__init__()
        self.image_size, self.width, self.latent = image_size, width, latent
        self.stages = count_stages(image_size, stages)
        widths, side = stages_of(image_size, width, stages)
        layers = [TransposedConv2d(latent, widths[-1], side, bias=False), BatchNorm2d(widths[-1]), nn.ReLU()]
        for inputs, outputs in pairwise(reversed(widths)):
            layers += [_upsampling(inputs, outputs), BatchNorm2d(outputs), nn.ReLU()]
        self.layers = nn.Sequential(*layers, _upsampling(width, 3), nn.Tanh())
        self.apply(_draw_weights)

    def forward(self, z: Tensor) -> Tensor:
        """z [B, latent] -> images [B, 3, H, W] in [-1, 1]."""
        x = z[:, :, None, None]
        for conv, norm, activation in zip(*(self.layers[i:-2:3] for i in range(3)), strict=True):
            x = norm(conv(x), activation=activation)
        return self.layers[-2:](x)

    def sample(self, count: int, *, generator: torch.Generator | None = None) -> Tensor:
        """Images [count, 3, H, W] in [-1, 1] decoded from samples of the prior N(0, I); as `VAE.sample`."""
        weight = self.layers[0].weight
        return self(torch.randn(count, self.latent, generator=generator, device=weight.device, dtype=weight.dtype))


class DcganDiscriminator(nn.Module):
    """Image -> one number: convolutions of stride 2, then one over the remaining map; no sigmoid.

    The source has four for 64x64; see `fastvae.models.stages`.

    Args:
        image_size: height and width of the images.
        width: channels after the first convolution, 64 in the source; later ones have 2, 4, and from then on 8 times
            as many.
        stages: how many convolutions of stride 2; None: by the image size.
    """

    def __init__(self, image_size: int = 64, width: int = 64, stages: int | None = None):
        super().__init__()
        widths, side = stages_of(image_size, width, stages)
        self.convs = nn.ModuleList(
            [
                ImageConv2d(3, width, 4, stride=2, padding=1),
                *(nn.Conv2d(i, o, 4, stride=2, padding=1, bias=False) for i, o in pairwise(widths)),
            ]
        )
        self.norms = nn.ModuleList(BatchNorm2d(channels) for channels in widths[1:])
        self.activation = nn.LeakyReLU(NEGATIVE_SLOPE)
        self.head = WholeMapConv2d(widths[-1], side)
        self.apply(_draw_weights)

    def forward(self, images: Tensor, batches: int = 1, layer: int | None = None) -> Tensor:
        """Images [B, 3, H, W] in [-1, 1] -> one number each, [B], float32 at least.

        Args:
            images: real or generated.
            batches: as in `BatchNorm2d`.
            layer: 1 to the number of stages, to return the output of that convolution, before its BN:
                [B, C, H / 2^layer, W / 2^layer].
        """
        last = len(self.convs) if layer is None else layer
        maps = self.convs[0](images)
        for i in range(1, last):
            maps = self.convs[i](self._activated(maps, i, batches))
        if layer is not None:
            return maps
        scores = self.head(self._activated(maps, last, batches))
        return scores.to(torch.promote_types(scores.dtype, torch.float32))

    def _activated(self, maps: Tensor, layer: int, batches: int) -> Tensor:
        """The output of convolution number `layer` after its BN, which the first one has not, and LeakyReLU."""
        return self.norms[layer - 2](maps, batches, self.activation) if layer > 1 else self.activation(maps)


def _upsampling(inputs: int, outputs: int) -> TransposedConv2d:
    return TransposedConv2d(inputs, outputs, 4, stride=2, padding=1, bias=outputs == 3)


def _draw_weights(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)
