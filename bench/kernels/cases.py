"""The calls of each op that the shipped recipes make: what is benchmarked, tuned and compiled ahead of time."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial

import torch
from torch import Tensor, nn

from fastvae.config import Config
from fastvae.kernels import feature_loss, replicate_conv2d, replicate_conv2d_with_sums
from fastvae.kernels.feature_loss import paper_weights
from fastvae.lossnet.network import LossNetwork
from fastvae.models import Critic, Decoder, Encoder
from fastvae.nn import ReplicationConv2d
from fastvae.optim import ClippedAdam, ClippedRMSprop
from fastvae.recipes import RECIPES


@dataclass(frozen=True)
class ConvCase:
    """One convolution of a decoder: `upsample` x nearest, then [batch, in_channels, size, size] -> out_channels."""

    batch: int
    in_channels: int
    out_channels: int
    size: int
    upsample: int
    bias: bool

    @property
    def name(self) -> str:
        """For tables, e.g. "64->32 16x16 up2 b64"."""
        up = f" up{self.upsample}" if self.upsample > 1 else ""
        return f"{self.in_channels}->{self.out_channels} {self.size}x{self.size}{up} b{self.batch}"

    def operands(self, dtype: torch.dtype, device: str = "cpu") -> tuple[Tensor, Tensor, Tensor | None]:
        """x of this dtype, weight and bias in float32, as under autocast; channels_last; all wanting gradients."""
        x = torch.randn(self.batch, self.in_channels, self.size, self.size, device=device, dtype=dtype)
        weight = torch.randn(self.out_channels, self.in_channels, 3, 3, device=device) / (9 * self.in_channels) ** 0.5
        bias = torch.randn(self.out_channels, device=device) if self.bias else None
        x, weight = (t.contiguous(memory_format=torch.channels_last) for t in (x, weight))
        return tuple(None if t is None else t.requires_grad_() for t in (x, weight, bias))


@dataclass(frozen=True)
class FeatureCase:
    """The feature loss of one recipe: its loss network's maps at one batch size."""

    batch: int
    shapes: tuple[tuple[int, int, int], ...]  # [C, H, W] of each layer

    @property
    def name(self) -> str:
        """For tables, e.g. "5 layers, 8.6 M features b64"."""
        elements = sum(self.batch * c * h * w for c, h, w in self.shapes)
        return f"{len(self.shapes)} layers, {elements / 1e6:.1f} M features b{self.batch}"

    @property
    def weights(self) -> tuple[float, ...]:
        """Equation 6's."""
        return paper_weights([c for c, _, _ in self.shapes])

    def operands(self, dtype: torch.dtype, device: str = "cpu") -> tuple[list[Tensor], list[Tensor]]:
        """Features, wanting gradients, and targets: both as a ReLU leaves them, in channels_last."""

        def maps():
            made = (torch.randn(self.batch, *s, device=device, dtype=dtype).relu_() for s in self.shapes)
            return [m.contiguous(memory_format=torch.channels_last) for m in made]

        return [m.requires_grad_() for m in maps()], maps()


@dataclass(frozen=True)
class UpdateCase:
    """One optimiser's parameters in one recipe."""

    name: str  # for tables, e.g. "critic, 64x64 width 32"
    shapes: tuple[tuple[int, ...], ...]
    optimizer: str  # "adam" or "rmsprop"
    clip: float | None

    def parameters(self, device: str = "cpu") -> list[nn.Parameter]:
        """float32, with gradients; convolutions in channels_last, as they are trained."""
        made = [torch.randn(s, device=device).mul_(0.01) for s in self.shapes]
        made = [p.contiguous(memory_format=torch.channels_last) if p.dim() == 4 else p for p in made]
        parameters = [nn.Parameter(p) for p in made]
        for p in parameters:
            p.grad = torch.randn_like(p)
        return parameters

    def build(self, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        """fastvae's optimiser over them."""
        return {"adam": ClippedAdam, "rmsprop": ClippedRMSprop}[self.optimizer](parameters, lr=5e-4, clip=self.clip)


def _configs(recipes: tuple[str, ...]) -> list[Config]:
    return [RECIPES[name]() for name in recipes]


@cache
def conv_cases(recipes: tuple[str, ...] = tuple(RECIPES)) -> tuple[ConvCase, ...]:
    """Every replication-padded convolution of these recipes' decoders, each once, in order of execution."""
    cases = {}

    def note(module, inputs, _):
        batch, _, size, _ = inputs[0].shape
        bias = module.bias is not None
        case = ConvCase(batch, module.in_channels, module.out_channels, size, module.upsample, bias)
        cases.setdefault(case)

    for config in _configs(recipes):
        with torch.device("meta"):
            decoder = Decoder(config.model.image_size, config.model.width, config.model.latent)
            for module in decoder.modules():
                if isinstance(module, ReplicationConv2d):
                    module.register_forward_hook(note)
            decoder(torch.randn(config.train.batch_size, config.model.latent))
    return tuple(cases)


@cache
def feature_cases(recipes: tuple[str, ...] = tuple(RECIPES)) -> tuple[FeatureCase, ...]:
    """The feature loss of every recipe that has one, each once."""
    cases = {}
    for config in _configs(recipes):
        if layers := getattr(config.objective, "layers", None):
            size, batch = config.model.image_size, config.train.batch_size
            with torch.device("meta"):
                maps = LossNetwork(layers)(torch.empty(1, 3, size, size))
            cases.setdefault(FeatureCase(batch, tuple(tuple(m.shape[1:]) for m in maps)))
    return tuple(cases)


@cache
def update_cases(recipes: tuple[str, ...] = tuple(RECIPES)) -> tuple[UpdateCase, ...]:
    """Critic and VAE of every size of model that the recipes train; the critic by RMSprop too, which is an option."""
    cases = {}
    for config in _configs(recipes):
        size, width, latent = config.model.image_size, config.model.width, config.model.latent
        with torch.device("meta"):
            critic = Critic(size, width).parameters()
            vae = [*Encoder(size, width, latent).parameters(), *Decoder(size, width, latent).parameters()]
        which = f"{size}x{size} width {width}"
        critic_shapes = tuple(tuple(p.shape) for p in critic)
        cases.setdefault(UpdateCase(f"critic, {which}", critic_shapes, "adam", 0.01))
        cases.setdefault(UpdateCase(f"critic by RMSprop, {which}", critic_shapes, "rmsprop", 0.01))
        cases.setdefault(UpdateCase(f"VAE, {which}", tuple(tuple(p.shape) for p in vae), "adam", None))
    return tuple(cases)


def recipe_runs(dtype: torch.dtype, recipes: tuple[str, ...] = tuple(RECIPES)) -> list[tuple[str, Callable[[], None]]]:
    """(op, function that calls it forward and backward) for every call that the recipes make in this precision."""

    def convolution(case: ConvCase) -> None:
        x, weight, bias = case.operands(dtype)
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            y = replicate_conv2d(x, weight, bias, upsample=case.upsample)
            replicate_conv2d_with_sums(x, weight, bias, upsample=case.upsample)
        torch.autograd.grad(y, [x, weight] + ([bias] if case.bias else []), torch.zeros_like(y))

    def loss(case: FeatureCase) -> None:
        features, targets = case.operands(dtype)
        feature_loss(features, targets, case.weights)
        with torch.no_grad():
            feature_loss(features, targets, case.weights)

    def update(case: UpdateCase) -> None:
        optimizer = case.build(case.parameters())
        optimizer.step()
        if case.optimizer == "rmsprop":
            optimizer.step(gate=torch.ones(()))  # as the VAE/GAN does

    runs = [("replicate_conv2d", partial(convolution, case)) for case in conv_cases(recipes)]
    runs += [("feature_loss", partial(loss, case)) for case in feature_cases(recipes)]
    if dtype == torch.float32:  # what the parameters are in, whatever the precision
        runs += [(f"{case.optimizer}_clip_", partial(update, case)) for case in update_cases(recipes)]
    return runs
