"""The peer: the same training step as a PyTorch user would write it from the paper, with stock modules.

Nearest upsampling and `Conv2d(padding_mode="replicate")`, VGG-19 as torchvision builds it, torch's own Adam and a
clamp, and the two players trained one after the other on the same batch with `detach`, as public WGAN code does.
"""

from collections.abc import Callable
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastvae.lossnet.network import BLOCKS, LossNetwork, tap_indices
from fastvae.models import Critic, Decoder, Encoder
from fastvae.nn import ReplicationConv2d

Network = TypeVar("Network", bound=nn.Module)


def replicating_conv(in_channels: int, out_channels: int, bias: bool) -> nn.Conv2d:
    """3x3, as one writes it in torch."""
    return nn.Conv2d(in_channels, out_channels, 3, padding=1, padding_mode="replicate", bias=bias)


class CatPaddedConv2d(nn.Conv2d):
    """The same, padded by torch.cat, for compiling training on a CPU.

    There torch.compile's backward of replication padding fails on its strides or is wrong (torch 2.11 to 2.13).
    """

    def __init__(self, in_channels: int, out_channels: int, bias: bool):
        super().__init__(in_channels, out_channels, 3, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat((x[..., :1], x, x[..., -1:]), -1)
        return super().forward(torch.cat((x[..., :1, :], x, x[..., -1:, :]), -2))


def with_stock_modules(
    network: Network, convolution: Callable[[int, int, bool], nn.Conv2d] = replicating_conv
) -> Network:
    """Replaces fastvae's modules in place by torch's: convolutions after nearest upsampling where ours upsample."""
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.BatchNorm2d):
                setattr(parent, name, StockBatchNorm2d(child.num_features))
            elif isinstance(child, ReplicationConv2d):
                stock = convolution(child.in_channels, child.out_channels, child.bias is not None)
                upsampled = nn.Sequential(nn.Upsample(scale_factor=2, mode="nearest"), stock)
                setattr(parent, name, upsampled if child.upsample == 2 else stock)
    return network


class StockBatchNorm2d(nn.BatchNorm2d):
    """torch's own, called as the networks call ours."""

    def forward(
        self, x: Tensor, batches: int = 1, activation: nn.Module | None = None, residual: Tensor | None = None
    ) -> Tensor:
        y = super().forward(x)
        y = y if residual is None else y + residual
        return y if activation is None else activation(y)


class PlainLossNetwork(nn.Module):
    """The loss network's taps from torchvision's sequence of stock layers, with the weights of ours."""

    def __init__(self, network: LossNetwork):
        super().__init__()
        last, layers, inputs = max(tap_indices(network.taps).values()), [], 3
        for widths in BLOCKS:
            for outputs in widths:
                layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU(inplace=True)]
                inputs = outputs
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers[: last + 1])
        self.load_state_dict(network.state_dict())
        self.register_buffer("shift", network.shift.clone(), persistent=False)
        self.taps = set(tap_indices(network.taps).values())
        self.requires_grad_(False)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Images [B, 3, H, W] in [-1, 1] -> one map per tap."""
        x, taps = images * 127.5 + self.shift, []
        for index, layer in enumerate(self.features):
            x = layer(x)
            if index in self.taps:
                taps.append(x)
        return taps


class PlainStep:
    """Called with pixels uint8 [B, H, W, 3] and noise [B, latent], trains one step.

    Args:
        loss_network: on the CPU; its weights are copied, into bfloat16 for `bf16`, as autocast would at every use.
        width, image_size: as in `ModelConfig`.
        label_scale: weight of the adversarial loss, the paper's unless given.
        device: "cuda" or "cpu".
        bf16: under autocast.
        channels_last: the layout that torch's tuning guide recommends for convolutions.
        fused: Adam in one launch.
        compiled: the passes with their backward passes by torch.compile, on a GPU with max-autotune and CUDA graphs.
    """

    def __init__(
        self,
        loss_network: LossNetwork,
        width: int,
        *,
        image_size: int = 64,
        label_scale: float = 10.0,
        device: str = "cpu",
        bf16: bool = False,
        channels_last: bool = False,
        fused: bool = False,
        compiled: bool = False,
    ):
        self.device, self.bf16, self.compiled, self.label_scale = device, bf16, compiled, label_scale
        self.loss_network = PlainLossNetwork(loss_network)
        convolution = CatPaddedConv2d if compiled and device == "cpu" else replicating_conv
        self.encoder, self.decoder, self.critic = (
            with_stock_modules(network, convolution)
            for network in (Encoder(image_size, width), Decoder(image_size, width), Critic(image_size, width))
        )
        layout = torch.channels_last if channels_last else torch.contiguous_format
        for network in (self.loss_network, self.encoder, self.decoder, self.critic):
            network.to(device, memory_format=layout)
        if bf16:
            self.loss_network.features.to(torch.bfloat16)
        vae = [*self.encoder.parameters(), *self.decoder.parameters()]
        self.vae_optimizer = torch.optim.Adam(vae, 5e-4, (0.5, 0.999), fused=fused or None)
        self.critic_optimizer = torch.optim.Adam(self.critic.parameters(), 5e-4, (0.5, 0.999), fused=fused or None)
        if compiled:
            mode = "max-autotune" if device == "cuda" else "default"
            self.forward, self.critic_loss, self.vae_loss = (
                torch.compile(f, mode=mode) for f in (self.forward, self.critic_loss, self.vae_loss)
            )

    def __call__(self, pixels: Tensor, noise: Tensor) -> dict[str, Tensor]:
        """Returns the step's loss terms."""
        if self.compiled and self.device == "cuda":
            torch.compiler.cudagraph_mark_step_begin()
        mean, log_variance, fake_features, features = self.forward(pixels, noise)
        critic_loss = self.critic_loss(fake_features[0].detach(), features[0])
        self.critic_optimizer.zero_grad()
        critic_loss.backward()
        self.critic_optimizer.step()
        with torch.no_grad():
            weights = list(self.critic.parameters())
            torch._foreach_clamp_min_(weights, -0.01)
            torch._foreach_clamp_max_(weights, 0.01)

        self.critic.requires_grad_(False)
        loss, kl, rec = self.vae_loss(mean, log_variance, fake_features, features)
        self.vae_optimizer.zero_grad()
        loss.backward()
        self.vae_optimizer.step()
        self.critic.requires_grad_(True)
        return {"kl": kl.detach(), "rec": rec.detach(), "critic": critic_loss.detach()}

    def forward(self, pixels: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, list[Tensor], list[Tensor]]:
        """Mean and log-variance of q(z|x), and the loss network's maps of the reconstructions and of the images."""
        images = pixels.permute(0, 3, 1, 2).float() / 127.5 - 1
        with self.autocast():
            mean, log_variance = self.encoder(images)
            fakes = self.decoder(mean + (0.5 * log_variance).exp() * noise)
            with torch.no_grad():
                features = self.loss_network(images)
            return mean, log_variance, self.loss_network(fakes), features

    def critic_loss(self, fake: Tensor, real: Tensor) -> Tensor:
        """What the critic descends."""
        with self.autocast():
            return self.label_scale * (self.critic(fake).mean() - self.critic(real).mean())

    def vae_loss(self, mean, log_variance, fake_features, features) -> tuple[Tensor, Tensor, Tensor]:
        """What encoder and decoder descend, and its first two terms."""
        with self.autocast():
            kl = 0.5 * (mean.float() ** 2 + log_variance.float().exp() - log_variance.float() - 1).sum(1).mean()
            rec = sum(
                50 / f.shape[1] ** 2 * F.mse_loss(f.float(), t.float())
                for f, t in zip(fake_features, features, strict=True)
            )
            return kl + 0.5 * rec - self.label_scale * self.critic(fake_features[0]).mean(), kl, rec

    def autocast(self):
        """bfloat16 where asked for."""
        return torch.autocast(self.device, torch.bfloat16, enabled=self.bf16)
