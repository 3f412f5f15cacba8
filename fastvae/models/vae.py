"""The VAE of section 3.2 as a plain module. `fastvae.VAE` adds loading, saving and acceleration."""

import operator

import torch
from torch import Tensor, nn

from fastvae.models.decoder import Decoder
from fastvae.models.encoder import Encoder
from fastvae.models.stages import count_stages


class VAE(nn.Module):
    """Variational autoencoder of Hou et al., section 3.2.

    Args:
        image_size: height and width of the images in pixels: 4, 5, 6 or 7 times a power of two, from 8 to 1024.
        width: channels of the stage with the highest resolution.
        latent: dimensions of z.
        stages: how often encoder and decoder halve and double a map. None: as often as leaves one of 4x4 to 7x7, which
            is 3 at 32x32, 4 at 64x64 (the paper's), 5 at 128x128. With a number, the image size may be any that can be
            halved so often without remainder.

    Attributes:
        stages: their number, also if None was given.

    Raises:
        ValueError: image_size and stages do not fit together, or a number is not a positive integer.
    """

    def __init__(self, image_size: int = 64, width: int = 32, latent: int = 100, stages: int | None = None):
        super().__init__()
        given = {"image_size": image_size, "width": width, "latent": latent}
        for name, value in (given if stages is None else {**given, "stages": stages}).items():
            if not (hasattr(value, "__index__") and operator.index(value) > 0):
                raise ValueError(f"VAE expects {name} as a positive integer; got {value!r}")
        self.image_size, self.width, self.latent = image_size, width, latent
        self.stages = count_stages(image_size, stages)
        self.encoder = Encoder(image_size, width, latent, self.stages)
        self.decoder = Decoder(image_size, width, latent, self.stages)

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images [B, 3, H, W] in [-1, 1], of the weights' dtype -> mean and log-variance of q(z|x), each [B, latent].

        Raises:
            ValueError: the shape or the dtype is wrong.
        """
        self._check(images)
        return self.encoder(images)

    def decode(self, z: Tensor) -> Tensor:
        """z [B, latent], of the weights' dtype -> images [B, 3, H, W] in [-1, 1].

        Raises:
            ValueError: the shape or the dtype is wrong.
        """
        if z.dim() != 2 or z.shape[1] != self.latent:
            raise ValueError(f"decode expects z of shape [B, {self.latent}]; got {list(z.shape)}")
        _check_dtype("z", z, self.decoder)
        return self.decoder(z)

    def reconstruct(self, images: Tensor) -> Tensor:
        """Images [B, 3, H, W] in [-1, 1] -> decode(mean of q(z|x)), [B, 3, H, W] in [-1, 1]."""
        return self.decode(self.encode(images)[0])

    def sample(self, count: int, *, generator: torch.Generator | None = None) -> Tensor:
        """Images [count, 3, H, W] in [-1, 1], decoded from samples of the prior N(0, I).

        Args:
            count: how many, >= 0.
            generator: of the parameters' device; None for torch's global one.
        """
        if not (hasattr(count, "__index__") and operator.index(count) >= 0):
            raise ValueError(f"sample expects a number of images, 0 or more; got {count!r}")
        weight = self.decoder.linear.weight
        z = torch.randn(count, self.latent, generator=generator, device=weight.device, dtype=weight.dtype)
        return self.decode(z)

    def forward(self, images: Tensor) -> Tensor:
        """The same as `reconstruct`."""
        return self.reconstruct(images)

    def _check(self, images: Tensor) -> None:
        size = self.image_size
        if images.dim() != 4 or tuple(images.shape[1:]) != (3, size, size):
            raise ValueError(f"expected images of shape [B, 3, {size}, {size}]; got {list(images.shape)}")
        if not images.is_floating_point():
            raise ValueError(
                f"expected floats in [-1, 1]; got {images.dtype}: for 8-bit pixels pass `images / 127.5 - 1`"
            )
        _check_dtype("images", images, self.encoder)


def _check_dtype(name: str, x: Tensor, network: nn.Module) -> None:
    dtype = next(network.parameters()).dtype
    if x.dtype != dtype and (x.device.type == "meta" or not torch.is_autocast_enabled(x.device.type)):
        raise ValueError(f"expected {name} of {dtype}, as the weights are; got {x.dtype}: pass `{name}.to({dtype})`")
