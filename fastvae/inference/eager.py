"""The folded VAE in torch's operations: the fallback, and float16 on a CPU."""

import torch
from torch import Tensor

from fastvae.inference.fold import FoldedDecoder, FoldedEncoder, FoldedReconstruction
from fastvae.models import VAE


class EagerVAE:
    """The methods of `VAE` for checked images and z; computes in `dtype`, returns float32."""

    def __init__(self, vae: VAE, dtype: torch.dtype):
        self._dtype = dtype
        self._encoder, self._decoder = FoldedEncoder(vae), FoldedDecoder(vae)
        self._both = FoldedReconstruction(self._encoder, self._decoder)
        self._both.to("cpu", dtype, memory_format=torch.channels_last)

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """[B, 3, H, W], float32 in [-1, 1] or uint8 -> mean and log-variance [B, latent]."""
        mean, log_variance = self._encoder(self._scaled(images))
        return mean.float(), log_variance.float()

    def decode(self, z: Tensor) -> Tensor:
        """[B, latent] float32 -> [B, 3, H, W] in [-1, 1]."""
        return self._decoder(z.to(self._dtype)).float()

    def reconstruct(self, images: Tensor) -> Tensor:
        """[B, 3, H, W], float32 in [-1, 1] or uint8 -> [B, 3, H, W] in [-1, 1]."""
        return self._both(self._scaled(images)).float()

    def _scaled(self, images: Tensor) -> Tensor:
        return scaled(images, self._dtype).contiguous(memory_format=torch.channels_last)


def scaled(images: Tensor, dtype: torch.dtype) -> Tensor:
    """[B, 3, H, W], uint8 in 0..255 or floats in [-1, 1] -> [-1, 1] in `dtype`; rounded once."""
    return (images.float() / 127.5 - 1 if images.dtype == torch.uint8 else images).to(dtype)
