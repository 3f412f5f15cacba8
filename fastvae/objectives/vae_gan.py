"""VAE/GAN: a VAE whose reconstruction loss compares features of its own discriminator.

    L_like = 1/2 |D_l(x) - D_l(x')|^2, summed over the features of the discriminator's layer l, mean over the batch
    L_dis  = -r mean log(D(x) + e) - (1 - r) mean log(1 - D(Decoder(z_p)) + e)

where x' are reconstructions and z_p is drawn from the prior;

    encoder:       descends KL + L_like
    decoder:       descends gamma L_like - L_dis / (1 - r)
    discriminator: descends L_dis

Source: Larsen et al. 2016 (arXiv:1512.09300), Algorithm 1, and its authors' public code as it has been since March
2016, where the two differ: the discriminator does not judge reconstructions; r = 0.5, gamma = 1e-6 (1e-5 at 32x32), the
layer at 64x64, e = 1e-3; the real images and what they are compared with are one batch for the discriminator's BN, so
that L_like sees their contrast and colour; RMSprop at 0.025 / 64 with a decay of 0.9; and the gating: with the mean
costs c = -log(... + e) of real and of generated images, the discriminator is not updated if one is below 0.68 - 0.35,
the decoder if one is above 0.68 + 0.35; if both would be skipped, both are updated. Encoder and decoder are those of
the VAE-WGAN and the discriminator is DCGAN's, so that only the training differs. The rate is constant and weights do
not decay, unlike that code's.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call

from fastvae.config import ModelConfig
from fastvae.errors import UsageError
from fastvae.models.dcgan import DcganDiscriminator
from fastvae.objectives.base import Averaged, Pass, Terms, Update
from fastvae.objectives.losses import kl_divergence, reparameterise, scale_gradient, with_fixed_parameters
from fastvae.objectives.plain_vae import PlainVae
from fastvae.optim import ClippedRMSprop
from fastvae.ranges import above, at_least, between, require

_EPSILON = 1e-3


@dataclass(frozen=True)
class VaeGanOptions:
    """Options of the VAE/GAN."""

    gamma: float = 1e-6  # weight of the learned similarity in the decoder's loss, >= 0
    # the discriminator's convolution of stride 2 whose output is compared, before its BN, from 1; by default the last
    # but one, at 64x64 the authors' third, but not below 3 where there are three: what the first two see is not
    # normalised, and their distances are too small to keep a code
    feature_layer: int | None = None
    real_weight: float = 0.5  # weight of the real images in the discriminator's loss, above 0 and below 1
    equilibrium: float = 0.68  # cost around which both decoder and discriminator are updated, nats
    margin: float = 0.35  # distance from it beyond which one of them is skipped, nats, > 0; large: no gating
    # share of the run's steps, from 0 to 1, in which the KL divergence's weight rises linearly from 0; 0: none
    kl_warmup: float = 0.0

    def __post_init__(self) -> None:
        require(
            self,
            gamma=at_least(0),
            feature_layer=at_least(1),
            equilibrium=at_least(0),
            margin=above(0),
            kl_warmup=between(0, 1),
        )
        if not 0 < self.real_weight < 1:
            raise UsageError(f"real-weight must be above 0 and below 1; got {self.real_weight}")


class VaeGan(PlainVae):
    """Encoder, decoder and discriminator, trained by one forward and one backward pass."""

    title = "VAE/GAN"
    description = "KL divergence and a similarity in the features of its own discriminator"
    averaged = (Averaged(("encoder",), "encoder"), Averaged(("decoder",), "decoder"))

    def __init__(self, options: VaeGanOptions, model: ModelConfig, loss_network: nn.Module | None = None):
        super().__init__(options, model, loss_network)
        self.latent, self.noise_size = model.latent, 2 * model.latent  # for the posterior and for the prior
        self.discriminator = DcganDiscriminator(model.image_size, 2 * model.width, model.stages)
        last = len(self.discriminator.convs)
        self.feature_layer = max(last - 1, min(3, last)) if options.feature_layer is None else options.feature_layer
        if self.feature_layer > last:
            raise UsageError(
                f"feature-layer must be from 1 to {last}, the convolutions of stride 2 of the discriminator; "
                f"got {self.feature_layer}"
            )
        self.networks["discriminator"] = self.discriminator

    def passes(self, step: int) -> Sequence[Pass]:
        return (Pass("all", self.loss, ("encoder", "decoder", "discriminator"), self.gates),)

    def updates(self, lr: float) -> dict[str, Update]:
        gates = {"decoder": "decoder_moves", "discriminator": "discriminator_moves"}
        return {
            name: Update(ClippedRMSprop(network.parameters(), lr=lr, alpha=0.9), gate=gates.get(name))
            for name, network in self.networks.items()
        }

    def loss(self, images: Tensor, noise: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        mean, log_variance = self.encoder(images)
        z = reparameterise(mean, log_variance, noise[:, : self.latent])
        kl = kl_divergence(mean, log_variance)
        like = self.likeness(images, z)
        real_cost, fake_cost = self.costs(images, noise[:, self.latent :])
        r = self.options.real_weight
        total = self.warmed_up(kl) + like + r * real_cost + (1 - r) * fake_cost
        return total, {
            "kl": kl.detach(),
            "similarity": like.detach(),
            "real": real_cost.detach(),
            "fake": fake_cost.detach(),
        }

    def gates(self, terms: Terms) -> dict[str, Tensor]:
        """Which player moves, from the mean costs of a step."""
        decoder_moves, discriminator_moves = gates(terms["real"], terms["fake"], self.options)
        return {"decoder_moves": decoder_moves, "discriminator_moves": discriminator_moves}

    def likeness(self, images: Tensor, z: Tensor) -> Tensor:
        """L_like of images and the reconstructions of z [B, latent].

        The gradient is unscaled for the encoder, times gamma for the decoder, none for the discriminator.
        """
        weighted = {n: scale_gradient(p, self.options.gamma) for n, p in self.decoder.named_parameters()}
        fakes = functional_call(self.decoder, weighted, (z,))
        maps = with_fixed_parameters(self.discriminator, torch.cat([images, fakes]), layer=self.feature_layer)
        real, fake = maps.chunk(2)
        return similarity(fake, real.detach())

    def costs(self, images: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """Mean -log(D(x) + e) over the images, mean -log(1 - D(fake) + e) over those of z [B, latent].

        Their gradient reaches the decoder negated, and scaled as if the second one, of weight 1 - r in the
        discriminator's loss, had the weight 1. The first one's comes from BN, for which both are one batch.
        """
        fakes = scale_gradient(self.decoder(z), -1 / (1 - self.options.real_weight))
        real, fake = torch.sigmoid(self.discriminator(torch.cat([images, fakes]))).chunk(2)
        return -torch.log(real + _EPSILON).mean(), -torch.log(1 - fake + _EPSILON).mean()

    def sample(self, noise: Tensor) -> Tensor:
        return self.decoder(noise[:, : self.latent])


def similarity(fake: Tensor, real: Tensor) -> Tensor:
    """L_like of features [B, C, H, W]: half their squared distance, in float32 at least, mean over the batch."""
    fake, real = (maps.to(torch.promote_types(maps.dtype, torch.float32)) for maps in (fake, real))
    return 0.5 * (fake - real).square().sum((1, 2, 3)).mean()


def gates(real_cost: Tensor, fake_cost: Tensor, options: VaeGanOptions) -> tuple[Tensor, Tensor]:
    """Whether decoder and discriminator are updated (1.0) or not (0.0), from the discriminator's mean costs in nats."""
    low, high = options.equilibrium - options.margin, options.equilibrium + options.margin
    discriminator_skipped = (real_cost < low) | (fake_cost < low)
    decoder_skipped = (real_cost > high) | (fake_cost > high)
    both = decoder_skipped & discriminator_skipped
    return tuple((~skipped | both).to(torch.float32) for skipped in (decoder_skipped, discriminator_skipped))
