"""Plain-VAE: the variational autoencoder with a per-pixel loss.

L = alpha KL(q(z|x) || N(0, I)) + |x - Decoder(z)|^2 / (2 sigma^2)         (Kingma and Welling 2014)
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fastvae.config import ModelConfig
from fastvae.models import Decoder, Encoder
from fastvae.objectives.base import Averaged, Objective, Pass, Update, adam
from fastvae.objectives.losses import gaussian_reconstruction, kl_divergence, reparameterise
from fastvae.ranges import above, at_least, between, require


@dataclass(frozen=True)
class PlainVaeOptions:
    """Options of the plain VAE."""

    alpha: float = 1.0  # weight of the KL divergence, >= 0
    sigma: float = 1.0  # standard deviation of a pixel around its reconstruction, images in [-1, 1], > 0
    # share of the run's steps, from 0 to 1, in which the KL divergence's weight rises linearly from 0; 0: none
    kl_warmup: float = 0.0

    def __post_init__(self) -> None:
        require(self, alpha=at_least(0), sigma=above(0), kl_warmup=between(0, 1))


class PlainVae(Objective):
    """Encoder and decoder, trained together by one loss. `DfcVae`, `VaeWgan` and `VaeGan` derive from it."""

    title = "Plain-VAE"
    description = "KL divergence and squared error of pixels"
    averaged = (Averaged(("encoder", "decoder"), "vae"),)

    def __init__(self, options, model: ModelConfig, loss_network: nn.Module | None = None):
        self.options = options
        self.noise_size = model.latent
        self.loss_network = loss_network
        self.encoder = Encoder(model.image_size, model.width, model.latent, model.stages)
        self.decoder = Decoder(model.image_size, model.width, model.latent, model.stages)
        self.networks = {"encoder": self.encoder, "decoder": self.decoder}
        self.kl_share = torch.ones(()) if options.kl_warmup else None

    def passes(self, step: int) -> Sequence[Pass]:
        return (Pass("vae", self.loss, ("vae",)),)

    def updates(self, lr: float) -> dict[str, Update]:
        return {"vae": Update(adam((self.encoder, self.decoder), lr))}

    def loss(self, images: Tensor, noise: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        mean, log_variance = self.encoder(images)
        fakes = self.decoder(reparameterise(mean, log_variance, noise))
        kl = kl_divergence(mean, log_variance)
        reconstruction = gaussian_reconstruction(images, fakes, self.options.sigma)
        total = self.options.alpha * self.warmed_up(kl) + reconstruction
        return total, {"kl": kl.detach(), "reconstruction": reconstruction.detach()}

    def warmed_up(self, kl: Tensor) -> Tensor:
        """The KL divergence times the share of its weight that this step has (`--kl-warmup`)."""
        return kl if self.kl_share is None else self.kl_share * kl

    def reconstruct(self, images: Tensor) -> Tensor:
        return self.decoder(self.encoder(images)[0])

    def sample(self, noise: Tensor) -> Tensor:
        return self.decoder(noise)
