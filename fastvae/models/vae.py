"""The VAE of section 3.2 as a plain module. `fastvae.VAE` adds loading, saving and acceleration."""

import operator

import torch
from torch import Tensor, nn

from fastvae.models.decoder import Decoder
from fastvae.models.encoder import Encoder


class VAE(nn.Module):
    """Variational autoencoder of Hou et al., section 3.2.

    Args:
        image_size: height and width of the images in pixels, a multiple of 16.
        width: channels of the stage with the highest resolution.
        latent: dimensions of z.

    Raises:
        ValueError: image_size is not a multiple of 16, or a number is not a positive integer.
    """

    def __init__(self, image_size: int = 64, width: int = 32, latent: int = 100):
        super().__init__()
        for name, value in {"image_size": image_size, "width": width, "latent": latent}.items():
            if not (hasattr(value, "__index__") and operator.index(value) > 0):
                raise ValueError(f"VAE expects {name} as a positive integer; got {value!r}")
        self.image_size, self.width, self.latent = image_size, width, latent
        self.encoder = Encoder(image_size, width, latent)
        self.decoder = Decoder(image_size, width, latent)

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images [B, 3, H, W], floats in [-1, 1] -> mean and log-variance of q(z|x), each [B, latent].

        Raises:
            ValueError: the shape or the dtype is wrong.
        """
        self._check(images)
        return self.encoder(images)

    def decode(self, z: Tensor) -> Tensor:
        """z [B, latent] -> images [B, 3, H, W] in [-1, 1].

        Raises:
            ValueError: the shape is wrong.
        """
        if z.dim() != 2 or z.shape[1] != self.latent:
            raise ValueError(f"decode expects z of shape [B, {self.latent}]; got {list(z.shape)}")
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
