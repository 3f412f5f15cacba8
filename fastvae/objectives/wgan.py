"""WGAN: the critic estimates a Wasserstein distance, its weights clipped after every step.

    critic:    ascends E_x f(x) - E_z f(G(z)), then every weight is clamped to [-c, c]
    generator: descends -E_z f(G(z)), once for every five critic steps

Source: Arjovsky, Chintala and Bottou 2017 (arXiv:1701.07875), Algorithm 1 with c = 0.01, RMSprop at 5e-5 and batches of
64. The authors' code takes 100 critic steps, not five, before each of the first 25 generator steps and every 500th one.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from fastvae.config import ModelConfig
from fastvae.objectives.base import Pass, Update
from fastvae.objectives.dcgan import Dcgan
from fastvae.optim import ClippedRMSprop
from fastvae.ranges import above, at_least, require


@dataclass(frozen=True)
class WganOptions:
    """Options of the WGAN. A step of training is one critic step, on a new batch."""

    clip: float = 0.01  # largest absolute value of a critic's weight, > 0
    critic_steps: int = 5  # critic steps before each generator step, > 0
    warmup_critic_steps: int = 100  # critic steps before a generator step of the warm-up, > 0
    warmup_generator_steps: int = 25  # generator steps at the beginning that belong to the warm-up, >= 0
    warmup_every: int = 500  # later ones are one in this many, > 0

    def __post_init__(self) -> None:
        require(
            self,
            clip=above(0),
            critic_steps=at_least(1),
            warmup_critic_steps=at_least(1),
            warmup_generator_steps=at_least(0),
            warmup_every=at_least(1),
        )


class Wgan(Dcgan):
    """DCGAN's networks, the discriminator as the critic."""

    title = "WGAN"
    description = "Wasserstein critic with clipped weights, no encoder"

    def __init__(self, options: WganOptions, model: ModelConfig, loss_network: nn.Module | None = None):
        super().__init__(options, model, loss_network)
        self.noise_size = 2 * model.latent  # a step of the critic and one of the generator

    def passes(self, step: int) -> Sequence[Pass]:
        critic, generator = super().passes(step)
        return (critic, generator) if generator_moves(step, self.options) else (critic,)

    def updates(self, lr: float) -> dict[str, Update]:
        return {
            "generator": Update(ClippedRMSprop(self.generator.parameters(), lr=lr)),
            "discriminator": Update(ClippedRMSprop(self.discriminator.parameters(), lr=lr, clip=self.options.clip)),
        }

    def discriminator_loss(self, images: Tensor, noise: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        real, fake = self.scores(images, self.fixed_fakes(noise[:, : self.latent]))
        loss = fake.mean() - real.mean()
        return loss, {"critic": loss.detach()}

    def generator_loss(self, images: Tensor, noise: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        loss = -self.scores_of_fakes(noise).mean()
        return loss, {"generator": loss.detach()}


def generator_moves(step: int, options: WganOptions) -> bool:
    """Whether the generator is updated after critic step number `step`, from 0."""
    first = options.warmup_generator_steps * options.warmup_critic_steps
    if step < first:
        return (step + 1) % options.warmup_critic_steps == 0
    # From here on, generator step g has warmup_critic_steps where warmup_every divides it.
    step, done = step - first, options.warmup_generator_steps
    usual = -done % options.warmup_every
    if step < usual * options.critic_steps:
        return (step + 1) % options.critic_steps == 0
    step -= usual * options.critic_steps
    step %= options.warmup_critic_steps + (options.warmup_every - 1) * options.critic_steps
    if step < options.warmup_critic_steps:
        return step + 1 == options.warmup_critic_steps
    return (step - options.warmup_critic_steps + 1) % options.critic_steps == 0
