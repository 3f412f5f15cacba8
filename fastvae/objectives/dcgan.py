"""DCGAN: a generator against a discriminator, with the non-saturating binary cross-entropy.

    discriminator: descends -E_x log s(D(x)) - E_z log(1 - s(D(G(z))))          s the sigmoid
    generator:     descends -E_z log s(D(G(z))), against the discriminator just updated

Source: Goodfellow et al. 2014; Radford et al. 2016 (arXiv:1511.06434) for the networks and for Adam with learning rate
2e-4 and beta1 = 0.5. WGAN and LSGAN derive from it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastvae.config import ModelConfig
from fastvae.models.dcgan import DcganDiscriminator, DcganGenerator
from fastvae.objectives.base import Averaged, Objective, Pass, Update, adam
from fastvae.objectives.losses import with_fixed_parameters


@dataclass(frozen=True)
class DcganOptions:
    """DCGAN has no options."""


class Dcgan(Objective):
    """Generator and discriminator, updated in turn. There is no encoder, so nothing is reconstructed."""

    title = "DCGAN"
    description = "binary cross-entropy, no encoder"
    averaged = (Averaged(("generator",), "generator"),)

    def __init__(self, options, model: ModelConfig, loss_network: nn.Module | None = None):
        self.options = options
        self.latent = self.noise_size = model.latent
        self.generator = DcganGenerator(model.image_size, model.width, model.latent, model.stages)
        self.discriminator = DcganDiscriminator(model.image_size, model.width, model.stages)
        self.networks = {"generator": self.generator, "discriminator": self.discriminator}

    def passes(self, step: int) -> Sequence[Pass]:
        return (
            Pass("discriminator", self.discriminator_loss, ("discriminator",)),
            Pass("generator", self.generator_loss, ("generator",)),
        )

    def updates(self, lr: float) -> dict[str, Update]:
        return {name: Update(adam((network,), lr)) for name, network in self.networks.items()}

    def discriminator_loss(self, images: Tensor, noise: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Images [B, 3, H, W] in [-1, 1], noise [B, noise_size] -> the discriminator's loss and the terms to log."""
        fakes = self.fixed_fakes(noise[:, : self.latent])
        real, fake = self.scores(images, fakes)
        loss = F.softplus(-real).mean() + F.softplus(fake).mean()
        return loss, {"discriminator": loss.detach()}

    def generator_loss(self, images: Tensor, noise: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The same for the generator; the discriminator is held fixed."""
        loss = F.softplus(-self.scores_of_fakes(noise)).mean()
        return loss, {"generator": loss.detach()}

    def fixed_fakes(self, z: Tensor) -> Tensor:
        """Generated images [B, 3, H, W] without a gradient, for the discriminator's pass."""
        with torch.no_grad():
            return self.generator(z)

    def scores(self, images: Tensor, fakes: Tensor) -> tuple[Tensor, Tensor]:
        """The discriminator's outputs [B] for real and generated images, each with batch statistics of its own."""
        return self.discriminator(torch.cat([images, fakes]), batches=2).chunk(2)

    def scores_of_fakes(self, noise: Tensor) -> Tensor:
        """The fixed discriminator's outputs [B] for images generated from the last `latent` numbers of the noise."""
        return with_fixed_parameters(self.discriminator, self.generator(noise[:, -self.latent :]))

    def sample(self, noise: Tensor) -> Tensor:
        return self.generator(noise[:, : self.latent])
