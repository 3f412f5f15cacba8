"""The calls of each op that the shipped recipes make: what is benchmarked, tuned and compiled ahead of time."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial

import torch
from torch import Tensor, nn

from fastvae.config import Config, ModelConfig
from fastvae.kernels import batch_norm, feature_loss, pack_weights, replicate_conv2d, replicate_conv2d_with_sums
from fastvae.kernels.feature_loss import paper_weights
from fastvae.lossnet.network import LossNetwork
from fastvae.models import Critic, Decoder, Encoder
from fastvae.models.batch_norm import BatchNorm2d
from fastvae.models.blocks import NEGATIVE_SLOPE
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
class NormCase:
    """One batch normalisation of a recipe's networks, with LeakyReLU, and with a residual where a block ends."""

    batch: int  # images, of all batches
    channels: int
    size: int
    batches: int
    residual: bool

    @property
    def name(self) -> str:
        """For tables, e.g. "32 channels 32x32 b128, 2 batches, residual"."""
        parts = f", {self.batches} batches" * (self.batches > 1) + ", residual" * self.residual
        return f"{self.channels} channels {self.size}x{self.size} b{self.batch}{parts}"

    def operands(self, dtype: torch.dtype, device: str = "cpu") -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """x, weight and bias in float32, and a residual or None; channels_last; all wanting gradients."""
        shape = (self.batch, self.channels, self.size, self.size)
        x, residual = (
            torch.randn(shape, device=device, dtype=dtype).contiguous(memory_format=torch.channels_last)
            for _ in range(2)
        )
        weight, bias = torch.ones(self.channels, device=device), torch.zeros(self.channels, device=device)
        made = (x, weight, bias, residual if self.residual else None)
        return tuple(None if t is None else t.requires_grad_() for t in made)


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


def _encoder(model: ModelConfig) -> Encoder:
    return Encoder(model.image_size, model.width, model.latent, model.stages)


def _decoder(model: ModelConfig) -> Decoder:
    return Decoder(model.image_size, model.width, model.latent, model.stages)


def _critic(model: ModelConfig) -> Critic:
    return Critic(model.image_size, model.width, stages=model.stages)


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
            decoder = _decoder(config.model)
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
def norm_cases(recipes: tuple[str, ...] = tuple(RECIPES)) -> tuple[NormCase, ...]:
    """Every batch normalisation of these recipes' encoders, decoders and critics, each once, in order of execution."""
    cases = {}

    def note(module, inputs, keywords, _):
        x, batches = (*inputs, 1)[:2]
        residual = keywords.get("residual") is not None
        cases.setdefault(NormCase(x.shape[0], x.shape[1], x.shape[2], batches, residual))

    for config in _configs(recipes):
        model, batch = config.model, config.train.batch_size
        with torch.device("meta"):
            encoder, decoder, critic = _encoder(model), _decoder(model), _critic(model)
            for network in (encoder, decoder, critic):
                for module in network.modules():
                    if isinstance(module, BatchNorm2d):
                        module.register_forward_hook(note, with_kwargs=True)
            encoder(torch.empty(batch, 3, model.image_size, model.image_size))
            decoder(torch.empty(batch, model.latent))
            critic.forward_pair(*torch.empty(2, batch, 64, model.image_size, model.image_size))
    return tuple(cases)


@cache
def update_cases(recipes: tuple[str, ...] = tuple(RECIPES)) -> tuple[UpdateCase, ...]:
    """Critic and VAE of every size of model that the recipes train; the critic by RMSprop too, which is an option."""
    cases = {}
    for config in _configs(recipes):
        model = config.model
        with torch.device("meta"):
            critic = _critic(model).parameters()
            vae = [*_encoder(model).parameters(), *_decoder(model).parameters()]
        which = f"{model.image_size}x{model.image_size} width {model.width}"
        critic_shapes = tuple(tuple(p.shape) for p in critic)
        cases.setdefault(UpdateCase(f"critic, {which}", critic_shapes, "adam", 0.01))
        cases.setdefault(UpdateCase(f"critic by RMSprop, {which}", critic_shapes, "rmsprop", 0.01))
        cases.setdefault(UpdateCase(f"VAE, {which}", tuple(tuple(p.shape) for p in vae), "adam", None))
    return tuple(cases)


def recipe_cases(recipes: tuple[str, ...]) -> tuple[tuple, tuple, tuple, tuple]:
    """Convolutions, feature losses, batch normalisations and updates of these recipes."""
    return conv_cases(recipes), feature_cases(recipes), norm_cases(recipes), update_cases(recipes)


def recipe_runs(dtype: torch.dtype, recipes: tuple[str, ...] = tuple(RECIPES)) -> list[tuple[str, Callable[[], None]]]:
    """(op, function that calls it forward and backward) for every call that the recipes make in this precision."""

    def convolution(case: ConvCase) -> None:
        x, weight, bias = case.operands(dtype)
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            y = replicate_conv2d(x, weight, bias, upsample=case.upsample)
            replicate_conv2d_with_sums(x, weight, bias, upsample=case.upsample)
            with torch.no_grad():  # as an accelerated VAE does it
                residual = y if case.upsample == 1 else None
                replicate_conv2d(
                    x, weight, bias, upsample=case.upsample, residual=residual, negative_slope=NEGATIVE_SLOPE
                )
        torch.autograd.grad(y, [x, weight] + ([bias] if case.bias else []), torch.zeros_like(y))

    def packing(config: Config) -> None:
        decoder = _decoder(config.model)
        convs = [module for module in decoder.modules() if isinstance(module, ReplicationConv2d)]
        weights = [conv.weight.contiguous(memory_format=torch.channels_last) for conv in convs]
        pack_weights(weights, [conv.upsample for conv in convs], dtype)

    def loss(case: FeatureCase) -> None:
        features, targets = case.operands(dtype)
        feature_loss(features, targets, case.weights)
        with torch.no_grad():
            feature_loss(features, targets, case.weights)

    def norm(case: NormCase) -> None:
        x, weight, bias, residual = case.operands(dtype)
        y = batch_norm(
            *(x, weight, bias, torch.zeros(case.channels), torch.ones(case.channels)),
            batches=case.batches,
            residual=residual,
            negative_slope=NEGATIVE_SLOPE,
        )
        torch.autograd.grad(y, [x, weight, bias], torch.zeros_like(y))

    def update(case: UpdateCase) -> None:
        optimizer = case.build(case.parameters())
        optimizer.step()
        if case.optimizer == "rmsprop":
            optimizer.step(gate=torch.ones(()))  # as the VAE/GAN does

    def bias_and_relu(case: FeatureCase) -> None:
        from fastvae.kernels.conv_relu_triton import bias_relu_

        # Of the loss network's maps, real and generated images in one batch; the convolution before is cuDNN's.
        for channels, h, w in case.shapes:
            y = torch.empty(2 * case.batch, channels, h, w, dtype=dtype, memory_format=torch.channels_last)
            bias_relu_(y, torch.empty(channels, dtype=dtype))

    runs = [("replicate_conv2d", partial(convolution, case)) for case in conv_cases(recipes)]
    runs += [("replicate_conv2d", partial(packing, config)) for config in _configs(recipes)]
    runs += [("feature_loss", partial(loss, case)) for case in feature_cases(recipes)]
    runs += [("batch_norm", partial(norm, case)) for case in norm_cases(recipes)]
    runs += [("conv_relu", partial(bias_and_relu, case)) for case in feature_cases(recipes)]
    if dtype == torch.float32:  # what the parameters are in, whatever the precision
        runs += [(f"{case.optimizer}_clip_", partial(update, case)) for case in update_cases(recipes)]
    return runs
