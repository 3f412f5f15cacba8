"""VAE-WGAN: the deep-feature-consistent VAE with a Wasserstein critic on the loss network's first feature map.

    L_GAN = s (mean critic(phi1(x)) - mean critic(phi1(x')))                      s = 10, the paper's labels 10 and -10
    the critic ascends L_GAN; encoder and decoder descend alpha KL + beta L_rec - s mean critic(phi1(x'))

Source: Hou et al., eq. 5 to 8 and Algorithm 1. As in Algorithm 1, one forward pass gives all losses of a step: with the
gradient reversed between the loss network and the critic, descending alpha KL + beta L_rec - L_GAN is both the critic's
ascent and the VAE's descent.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from fastvae.config import ModelConfig
from fastvae.errors import UsageError
from fastvae.kernels import reverse_gradient
from fastvae.models import Critic
from fastvae.objectives.base import Pass, Terms, Update
from fastvae.objectives.dfc_vae import DfcVae, DfcVaeOptions
from fastvae.objectives.held_share import HeldShare
from fastvae.objectives.layer_weights import LayerWeights
from fastvae.objectives.losses import reparameterise, with_fixed_parameters
from fastvae.optim import ClippedAdam, ClippedRMSprop
from fastvae.ranges import above, at_least, require

# The loss network's features of a batch of images, if already computed.
Features = tuple[Tensor, ...] | None
Clipped = Literal["weights", "weights_except_norm", "gradients", "nothing"]


@dataclass(frozen=True)
class VaeWganOptions(DfcVaeOptions):
    """Options of the VAE-WGAN. `critic` names a form; fields after it that are None take that form's value."""

    # layers of the loss network whose features are compared
    layers: tuple[str, ...] = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")
    # paper: 100 / C_l^2 (eq. 6); unit: 1 each (DFC-VAE); equal: eq. 6 times factors that let the chosen layers
    # contribute alike, and together as much as all five do
    layer_weights: LayerWeights = "paper"
    # paper: Algorithm 1 exactly; balanced: a label scale of 30; held: steered to critic-share
    critic: Literal["paper", "balanced", "held"] = "paper"
    # with critic held: the ratio |dL_GAN/dx'| / |d(beta L_rec)/dx'| to keep; measured every balance-every steps, and
    # limited in every step by the last measurement; > 0
    critic_share: float = 0.25
    # weight s of the adversarial loss (the paper's labels are +-10), >= 0; with critic held the VAE's first one, > 0,
    # which then stays between a thousandth of it and ten times it
    label_scale: float | None = None
    clip: float | None = None  # largest absolute value after clipping, > 0
    clipped: Clipped | None = None  # what is clipped; weights_except_norm exempts BN's scale and shift
    # rmsprop: as in WGAN, at 5e-5 unless critic-lr is given
    critic_optimizer: Literal["adam", "rmsprop"] | None = None
    critic_lr: float | None = None  # initial learning rate of the critic, > 0
    adversarial: Literal["wasserstein", "mse"] = (
        "wasserstein"  # mse: squared distance of the critic's output to labels +-s
    )
    order: Literal["together", "critic_first"] = (
        "together"  # critic_first: the VAE is trained against the updated critic
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, label_scale=at_least(0), clip=above(0), critic_lr=above(0), critic_share=above(0))
        if self.critic == "held":
            if not (self.beta > 0 and (self.label_scale is None or self.label_scale > 0)):
                raise UsageError(
                    "critic held compares the critic's gradient with the feature loss's: beta and label-scale must be "
                    f"more than 0; got {self.beta} and {self.label_scale}"
                )
            if self.adversarial != "wasserstein":
                raise UsageError(
                    "critic held steers a label scale that the critic's gradient is proportional to: adversarial must "
                    f"be wasserstein; got {self.adversarial}"
                )
        elif self.critic_share != type(self).critic_share:
            raise UsageError(f"critic-share is for critic held; got {self.critic_share} and critic {self.critic}")


@dataclass(frozen=True)
class CriticForm:
    """The settings that a value of `critic` stands for. `lr` None: the VAE's learning rate.

    With critic="held" the label scale is that of the critic's own loss, and the one that the VAE's begins with.
    """

    label_scale: float
    clip: float
    clipped: Clipped
    optimizer: Literal["adam", "rmsprop"]
    lr: float | None


FORMS = {
    "paper": CriticForm(label_scale=10.0, clip=0.01, clipped="weights", optimizer="adam", lr=None),
    "balanced": CriticForm(label_scale=30.0, clip=0.01, clipped="weights", optimizer="adam", lr=None),
    "held": CriticForm(label_scale=10.0, clip=0.01, clipped="weights", optimizer="adam", lr=None),
}


def critic_form(options: VaeWganOptions) -> CriticForm:
    """The form that `options.critic` names, with the overrides of the options."""
    form = FORMS[options.critic]

    def either(override, default):
        return default if override is None else override

    optimizer = either(options.critic_optimizer, form.optimizer)
    # WGAN uses 5e-5 for RMSprop; the paper's 5e-4 is for Adam.
    lr = 5e-5 if optimizer == "rmsprop" else form.lr
    return CriticForm(
        label_scale=either(options.label_scale, form.label_scale),
        clip=either(options.clip, form.clip),
        clipped=either(options.clipped, form.clipped),
        optimizer=optimizer,
        lr=either(options.critic_lr, lr),
    )


class VaeWgan(DfcVae):
    """A DFC-VAE and a critic, trained together.

    Attributes:
        form: the critic's settings.
        held: with critic="held" what holds the critic's gradient to its share; else None.
    """

    title = "VAE-WGAN"
    description = "KL divergence, feature loss of VGG-19 and a Wasserstein critic"

    def __init__(self, options: VaeWganOptions, model: ModelConfig, loss_network: nn.Module):
        super().__init__(options, model, loss_network)
        self.form = critic_form(options)
        self.critic = Critic(model.image_size, model.width, loss_network.channels[0], model.stages)
        self.networks["critic"] = self.critic
        self.held = HeldShare(options.critic_share, self.form.label_scale) if options.critic == "held" else None

    @classmethod
    def taps(cls, options: VaeWganOptions) -> tuple[str, ...]:
        return tuple({"relu1_1", *options.layers})  # relu1_1 is the critic's input, compared or not

    def passes(self, step: int) -> Sequence[Pass]:
        if self.options.order == "together":
            return (Pass("all", self.loss, ("vae", "critic")),)
        return (
            Pass("critic", self.critic_first_loss, ("critic",)),
            Pass("vae", self.vae_second_loss, ("vae",)),
        )

    def updates(self, lr: float) -> dict[str, Update]:
        form = self.form
        lr_critic = lr if form.lr is None else form.lr
        clip = form.clip if form.clipped.startswith("weights") else None
        optimizer = {"adam": ClippedAdam, "rmsprop": ClippedRMSprop}[form.optimizer]
        groups = [{"params": list(self.critic.parameters()), "clip": clip}]
        if form.clipped == "weights_except_norm":
            norms = [p for m in self.critic.modules() if isinstance(m, nn.BatchNorm2d) for p in m.parameters()]
            others = [p for p in self.critic.parameters() if all(p is not q for q in norms)]
            groups = [{"params": others, "clip": clip}, {"params": norms, "clip": None}]
        return {
            **super().updates(lr),
            "critic": Update(
                optimizer(groups, lr=lr_critic),
                clip_gradients=form.clip if form.clipped == "gradients" else None,
            ),
        }

    def loss(self, images: Tensor, noise: Tensor, features: Features = None) -> tuple[Tensor, dict[str, Tensor]]:
        """Algorithm 1: all losses of a step from one forward pass, for one backward pass and three updates."""
        kl, rec, features, fake_features = self.forward(images, noise, features)
        if self.options.adversarial == "wasserstein":
            fake = reverse_gradient(fake_features[0])
            if self.held:
                # The VAE's gradient alone is held. Adam's update of the critic does not depend on its loss's scale, but
                # Adam averages squared gradients over a thousand steps: a rising scale would raise the critic's rate
                # for as long.
                fake = self.held.hold(fake)
            critic_loss = self.critic_distance(features[0], fake)
            adversarial = critic_loss
        else:  # critic and VAE descend different functions of the critic's output: reversing the sign is not enough
            critic_loss = self.critic_distance(features[0], fake_features[0].detach())
            adversarial = critic_loss + self.generator_distance(fake_features[0])
        total = self.options.alpha * self.warmed_up(kl) + self.options.beta * rec + adversarial
        return total, {"kl": kl.detach(), "rec": rec.detach(), "critic": critic_loss.detach()}

    def critic_first_loss(
        self, images: Tensor, noise: Tensor, features: Features = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The critic's pass with `order="critic_first"`."""
        with torch.no_grad():
            _, _, features, fake_features = self.forward(images, noise, features)
        critic_loss = self.critic_distance(features[0], fake_features[0])
        return critic_loss, {"critic": critic_loss.detach()}

    def vae_second_loss(
        self, images: Tensor, noise: Tensor, features: Features = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The VAE's pass with `order="critic_first"`, against the critic just updated."""
        kl, rec, _, fake_features = self.forward(images, noise, features)
        vae = self.options.alpha * self.warmed_up(kl) + self.options.beta * rec
        fake = self.held.hold(fake_features[0]) if self.held else fake_features[0]
        total = vae + self.generator_distance(fake)
        return total, {"kl": kl.detach(), "rec": rec.detach()}

    def critic_distance(self, real: Tensor, fake: Tensor) -> Tensor:
        """The critic's loss: -L_GAN, or the squared distances to the labels s and -s.

        Batch statistics of real and generated maps [B, C, H, W] do not mix.
        """
        s = self.form.label_scale
        real_scores, fake_scores = self.critic.forward_pair(real, fake)
        if self.options.adversarial == "wasserstein":
            return -s * (real_scores.mean() - fake_scores.mean())
        return (real_scores - s).square().mean() + (fake_scores + s).square().mean()

    def generator_distance(self, fake: Tensor) -> Tensor:
        """The adversarial loss of encoder and decoder: -s mean critic, or its squared distance to s; critic fixed."""
        scores, s = with_fixed_parameters(self.critic, fake), self.form.label_scale
        if self.options.adversarial == "wasserstein":
            return -s * scores.mean()
        return (scores - s).square().mean()

    def balance(self, images: Tensor, noise: Tensor) -> dict[str, Tensor]:
        """|dL_GAN/dx'| / |d(beta L_rec)/dx'| at the generated images x': how strongly each loss changes the pixels.

        Nothing if beta is 0. With critic="held" also what `HeldShare.measured` names.
        """
        if not self.options.beta:
            return {}
        with torch.no_grad():
            mean, log_variance = self.encoder(images)
            fakes = self.decoder(reparameterise(mean, log_variance, noise))
            features = self.loss_network(images)
        fakes = fakes.detach().requires_grad_()
        fake_features = self.loss_network(fakes)
        rec = self.options.beta * self.feature_distance(fake_features, features)
        (by_rec,) = torch.autograd.grad(rec, fakes, retain_graph=True)
        gan = self.generator_distance(fake_features[0])
        by_phi1, by_gan = torch.autograd.grad(gan, (fake_features[0], fakes))
        by_rec, by_gan = by_rec.float().norm(), by_gan.float().norm()
        return self.held.measured(by_phi1, by_gan, by_rec) if self.held else {"gan_to_rec": by_gan / by_rec}

    def steer(self, measured: Terms) -> None:
        if self.held:
            self.held.steer_(measured)

    def steered(self) -> dict[str, Tensor]:
        return self.held.numbers() if self.held else {}

    def to(self, device: torch.device) -> "VaeWgan":
        super().to(device)
        if self.held:
            self.held.to(device)
        return self
