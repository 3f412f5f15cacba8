"""LSGAN (loss-sensitive): a generated image should have a larger loss than a real one, by a margin.

    L(x) = max(D(x), 0), the learned loss function
    loss function: descends gamma E_x L(x) + E max(0, lambda |x - G(z)|_1 + L(x) - L(G(z)))
    generator:     descends E_z L(G(z)), against the loss function just updated

Source: Qi 2017 (arXiv:1701.06264), eq. 6 and 7; networks, Adam at 1e-4 with beta1 = 0.5, L1 distance, lambda (8e-4 at
32x32, which has a quarter of the pixels) and gamma are those of the author's code. Not the least-squares GAN, which has
the same initials.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from fastvae.objectives.dcgan import Dcgan
from fastvae.ranges import at_least, require


@dataclass(frozen=True)
class LsganOptions:
    """Options of the loss-sensitive GAN."""

    # lambda: margin per unit of distance, which is the sum of |x - G(z)| over pixels and channels, >= 0
    margin: float = 2e-4
    gamma: float = 0.0  # weight of the loss of real images, >= 0

    def __post_init__(self) -> None:
        require(self, margin=at_least(0), gamma=at_least(0))


class Lsgan(Dcgan):
    """DCGAN's networks; the loss function is the discriminator followed by a ReLU."""

    title = "LSGAN"
    description = "loss-sensitive, margins that grow with distance, no encoder"

    def discriminator_loss(self, images: Tensor, noise: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        fakes = self.fixed_fakes(noise)
        real, fake = (torch.relu(scores) for scores in self.scores(images, fakes))
        distance = (images - fakes).abs().flatten(1).sum(1, dtype=real.dtype)
        hinge = torch.relu(self.options.margin * distance + real - fake).mean()
        loss = self.options.gamma * real.mean() + hinge
        return loss, {"hinge": hinge.detach(), "real": real.mean().detach(), "fake": fake.mean().detach()}

    def generator_loss(self, images: Tensor, noise: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        loss = torch.relu(self.scores_of_fakes(noise)).mean()
        return loss, {"generator": loss.detach()}
