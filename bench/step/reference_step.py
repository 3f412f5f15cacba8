"""Algorithm 1 in stock PyTorch, and the size of the run that compares ours with it."""

import copy
from typing import Literal

import torch
from torch import Tensor, nn

from bench.step.plain_step import with_stock_modules
from fastvae.objectives.vae_wgan import VaeWgan

FACES, BATCH, LR = 1024, 8, 5e-4


class ReferenceStep:
    """Algorithm 1 in stock PyTorch: what the training step has to equal.

    Nearest upsampling and `Conv2d(padding_mode="replicate")`, equations 5 to 8 in plain tensor operations, the
    gradients of VAE and critic each by themselves from the one forward pass, torch's own optimisers, and a clamp.

    Args:
        objective: gives the initial weights, which are copied, and the loss network, which is shared and whose taps
            are all compared. The reference computes in its dtype.
        critic_optimizer: Adam as the VAE has it, or RMSprop as WGAN has it.
        clip_norms: whether scale and shift of the critic's batch normalisation are clipped with its other weights.
    """

    def __init__(
        self,
        objective: VaeWgan,
        *,
        critic_optimizer: Literal["adam", "rmsprop"] = "adam",
        clip_norms: bool = True,
    ):
        self.loss_network = objective.loss_network
        encoder, decoder, critic = (copy.deepcopy(n) for n in (objective.encoder, objective.decoder, objective.critic))
        # The stock modules have other keys than ours and the same order.
        weights = list(decoder.state_dict().values())
        decoder = with_stock_modules(decoder).to(weights[0].dtype)
        decoder.load_state_dict(dict(zip(decoder.state_dict(), weights, strict=True)))
        self.networks = {"encoder": encoder, "decoder": decoder, "critic": critic}
        self.vae = [*encoder.parameters(), *decoder.parameters()]
        self.critic = list(critic.parameters())
        self.vae_optimizer = torch.optim.Adam(self.vae, LR, (0.5, 0.999))
        self.critic_optimizer = (
            torch.optim.Adam(self.critic, LR, (0.5, 0.999))
            if critic_optimizer == "adam"
            else torch.optim.RMSprop(self.critic, 5e-5, alpha=0.99)
        )
        norms = {p for m in critic.modules() if isinstance(m, nn.BatchNorm2d) for p in m.parameters()}
        self.clipped = [p for p in self.critic if clip_norms or p not in norms]

    def __call__(self, pixels: Tensor, noise: Tensor) -> dict[str, Tensor]:
        """One step on pixels uint8 [B, H, W, 3] and noise [B, latent]; returns the loss terms, detached."""
        terms = self.backward(pixels, noise)
        self.update()
        return terms

    def backward(self, pixels: Tensor, noise: Tensor) -> dict[str, Tensor]:
        """Leaves every parameter's gradient at the same weights in `grad`, and returns the loss terms."""
        encoder, decoder, critic = self.networks.values()
        images = (pixels.permute(0, 3, 1, 2).float() / 127.5 - 1).to(noise.dtype)
        mean, log_variance = encoder(images)
        fakes = decoder(mean + torch.exp(log_variance / 2) * noise)
        features, fake_features = self.loss_network(images), self.loss_network(fakes)

        kl = -0.5 * (1 + log_variance - mean**2 - log_variance.exp()).sum(1).mean()
        rec = 0
        for real, fake in zip(features, fake_features, strict=True):
            c, h, w = real.shape[1:]
            layer = ((real - fake) ** 2).sum((1, 2, 3)) / (2 * c * w * h)  # eq. 5
            rec = rec + 100 / c**2 * layer.mean()  # eq. 6
        score, fake_score = critic(features[0]).mean(), critic(fake_features[0]).mean()
        gan = 10 * (score - fake_score)

        # Critic and VAE pull the critic's output in opposite directions, so each gradient is taken by itself.
        for loss, parameters in ((kl + 0.5 * rec - 10 * fake_score, self.vae), (-gan, self.critic)):
            gradients = torch.autograd.grad(loss, parameters, retain_graph=True)
            for p, gradient in zip(parameters, gradients, strict=True):
                p.grad = gradient
        return {"kl": kl.detach(), "rec": rec.detach(), "critic": -gan.detach()}

    def update(self) -> None:
        """Both optimisers' steps by the gradients in `grad`, then the clamp."""
        self.vae_optimizer.step()
        self.critic_optimizer.step()
        with torch.no_grad():
            for p in self.clipped:
                p.clamp_(-0.01, 0.01)
