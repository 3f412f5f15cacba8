"""The peer: the same training step as a PyTorch user would write it from the paper, with stock modules.

Nearest upsampling and `Conv2d(padding_mode="replicate")`, torch's own Adam and a clamp, and the two players trained
one after the other on the same batch with `detach`, as public WGAN code does.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastvae.models import Critic, Decoder, Encoder


class UpsampledConv2d(nn.Sequential):
    """Nearest x2, then a replication-padded 3x3 convolution, as two stock modules."""

    def __init__(self, in_channels: int, out_channels: int, bias: bool):
        super().__init__(
            nn.Upsample(scale_factor=2, mode="nearest"),
            nn.Conv2d(in_channels, out_channels, 3, padding=1, padding_mode="replicate", bias=bias),
        )


def with_stock_modules(decoder: Decoder) -> Decoder:
    """Replaces fastvae's convolutions in place by torch's."""
    for parent in list(decoder.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Conv2d):
                bias = child.bias is not None
                stock = nn.Conv2d(
                    child.in_channels, child.out_channels, 3, padding=1, padding_mode="replicate", bias=bias
                )
                upsampled = UpsampledConv2d(child.in_channels, child.out_channels, bias)
                setattr(parent, name, upsampled if child.upsample == 2 else stock)
    return decoder


class PlainStep:
    """Called with pixels uint8 [B, H, W, 3] and noise [B, latent], trains one step.

    Args:
        loss_network: shared with the contender, so that only the step differs.
        width: as in `ModelConfig`.
        bf16: under autocast.
        channels_last: the layout that torch's tuning guide recommends for convolutions on CPUs.
    """

    def __init__(self, loss_network: nn.Module, width: int, *, bf16: bool, channels_last: bool):
        self.loss_network, self.bf16 = loss_network, bf16
        self.encoder, self.decoder, self.critic = (
            Encoder(64, width),
            with_stock_modules(Decoder(64, width)),
            Critic(64, width),
        )
        if channels_last:
            for network in (self.encoder, self.decoder, self.critic):
                network.to(memory_format=torch.channels_last)
        vae = [*self.encoder.parameters(), *self.decoder.parameters()]
        self.vae_optimizer = torch.optim.Adam(vae, 5e-4, (0.5, 0.999), fused=True)
        self.critic_optimizer = torch.optim.Adam(self.critic.parameters(), 5e-4, (0.5, 0.999), fused=True)

    def __call__(self, pixels: Tensor, noise: Tensor) -> None:
        images = pixels.permute(0, 3, 1, 2).float() / 127.5 - 1
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
            mean, log_variance = self.encoder(images)
            fakes = self.decoder(mean + (0.5 * log_variance).exp() * noise)
            with torch.no_grad():
                features = self.loss_network(images)
            fake_features = self.loss_network(fakes)
            critic_loss = 10 * (self.critic(fake_features[0].detach()).mean() - self.critic(features[0]).mean())
        self.critic_optimizer.zero_grad()
        critic_loss.backward()
        self.critic_optimizer.step()
        with torch.no_grad():
            for p in self.critic.parameters():
                p.clamp_(-0.01, 0.01)

        self.critic.requires_grad_(False)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
            kl = 0.5 * (mean.float() ** 2 + log_variance.float().exp() - log_variance.float() - 1).sum(1).mean()
            rec = sum(
                50 / f.shape[1] ** 2 * F.mse_loss(f.float(), t.float())
                for f, t in zip(fake_features, features, strict=True)
            )
            loss = kl + 0.5 * rec - 10 * self.critic(fake_features[0]).mean()
        self.vae_optimizer.zero_grad()
        loss.backward()
        self.vae_optimizer.step()
        self.critic.requires_grad_(True)
