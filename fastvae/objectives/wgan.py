"""WGAN: the critic estimates a Wasserstein distance, its weights clipped after every step.

    critic:    ascends E_x f(x) - E_z f(G(z)), then every weight is clamped to [-c, c]
    generator: descends -E_z f(G(z)), once for every five critic steps

Source: Arjovsky, Chintala and Bottou 2017 (arXiv:1701.07875), Algorithm 1 with c = 0.01, RMSprop at 5e-5 and batches of
64; the longer rounds, a hundred critic steps, are those of the authors' code: for each of the first 25 generator steps
and for every 500th.
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
    """Options of the WGAN. A step of training is a critic step; each has a batch of its own."""

    clip: float = 0.01  # largest absolute value of a critic's weight, > 0
    critic_steps: int = 5  # critic steps for each generator step, > 0
    long_round: int = 100  # critic steps of the longer rounds, > 0
    first_long: int = 25  # generator steps at the beginning that have a longer round, >= 0
    long_every: int = 500  # and every which generator step has one, > 0

    def __post_init__(self) -> None:
        require(
            self,
            clip=above(0),
            critic_steps=at_least(1),
            long_round=at_least(1),
            first_long=at_least(0),
            long_every=at_least(1),
        )


class Wgan(Dcgan):
    """DCGAN's networks, the discriminator as the critic."""

    def __init__(self, options: WganOptions, model: ModelConfig, loss_network: nn.Module | None = None):
        super().__init__(options, model, loss_network)
        self.noise_size = 2 * model.latent  # the generator's step draws anew

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
    """Whether critic step `step`, from 0, is the last of a round, after which the generator moves."""
    first = options.first_long * options.long_round
    if step < first:
        return (step + 1) % options.long_round == 0
    # From here on, generator step g has a long round where long_every divides it.
    step, done = step - first, options.first_long
    usual = -done % options.long_every
    if step < usual * options.critic_steps:
        return (step + 1) % options.critic_steps == 0
    step -= usual * options.critic_steps
    step %= options.long_round + (options.long_every - 1) * options.critic_steps
    if step < options.long_round:
        return step + 1 == options.long_round
    return (step - options.long_round + 1) % options.critic_steps == 0
