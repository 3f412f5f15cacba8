"""The contenders of the comparison of training steps, and their size."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from types import SimpleNamespace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from bench.measuring.ours import OURS
from bench.measuring.tuned import tuned
from bench.step.gate import take_weights
from bench.step.plain_step import PlainStep
from fastvae.config import Config, ModelConfig, TrainConfig
from fastvae.lossnet import TAPS, LossNetwork, load_loss_network
from fastvae.machine import choose_precision, compile_obstacle
from fastvae.objectives.vae_wgan import critic_form
from fastvae.recipes import RECIPES
from fastvae.train.build import build
from fastvae.train.learning_rates import LearningRates
from fastvae.train.meter import Meter
from fastvae.train.runner import Runner

BASE = "plain eager fp32"
# The paper's constants, which its users would write down; celeba64's make the same step, with a KL that rises.
_RECIPE = RECIPES["celeba64-literal"]().objective
SEED = 0


@dataclass(frozen=True)
class Settings:
    """What is run. `steps_per_sample` steps are launched at once, as in training, and their mean time is a sample."""

    device: str
    batch: int
    width: int
    rounds: int
    steps_per_sample: int
    compiled: bool = True
    image_size: int = 64
    layers: tuple[str, ...] = TAPS


class Built(NamedTuple):
    """A contender on its batch: `call` trains one step, `losses` are those of the last one.

    `networks` are the networks that it trains, by name; only for ours, whose first step is compared with another.
    """

    call: Callable[[], object]
    losses: Callable[[], dict[str, float]]
    networks: dict[str, nn.Module] | None = None


@dataclass(frozen=True)
class Contender:
    """`build(pixels, noise)` makes it ready to train on that batch."""

    what: str
    precision: str
    build: Callable[[Tensor, Tensor], Built]


def settings(*, tiny: bool) -> Settings:
    """For this machine; tiny ones compute little and compile nothing."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if tiny:
        small = {"compiled": False, "image_size": 32, "layers": ("relu1_1", "relu2_1")}
        # Fewer weights and images turn so differently in bfloat16 that a right step looks like a wrong one: the cosine
        # to the float32 step is 0.40 to 0.93 for 2 and 2, 0.66 to 0.86 for these (six seeds).
        return Settings(device, batch=16, width=8, rounds=2, steps_per_sample=1, **small)
    if device == "cuda":
        return Settings(device, batch=64, width=32, rounds=30, steps_per_sample=10)
    return Settings(device, batch=32, width=32, rounds=8, steps_per_sample=1)


def contenders(chosen: Settings, note: Callable[[str], None]) -> dict[str, Contender]:
    """Those that this machine can run."""
    device = torch.device(chosen.device)
    best = choose_precision("auto", device)
    compiles = chosen.compiled
    if compiles and (obstacle := compile_obstacle(device)):
        note(f"left out what is compiled: {obstacle}")
        compiles = False
    plain = partial(_plain, chosen)
    made = {BASE: Contender("torch's modules and Adam", "fp32", plain())}
    if best.value == "bf16":
        fast = {"channels_last": True, "bf16": True, "fused": True}
        name = "plain eager bf16 channels_last"
        made[name] = Contender("channels_last, autocast, fused Adam", "bf16", plain(**fast))
    else:
        note(f"left out what computes in bfloat16: {best.reason}")
        fast = {"channels_last": True, "fused": True}
        made["plain eager fp32 channels_last"] = Contender("channels_last, fused Adam", "fp32", plain(**fast))
    made |= _all_of_ours(chosen, best.value, compiles)
    if compiles:  # last: searching for the fastest kernels takes minutes, in which a time limit may come
        how = "max-autotune with CUDA graphs" if chosen.device == "cuda" else "padding by torch.cat"
        what = f"channels_last, fused Adam, torch.compile, {how}"
        made[f"plain compiled {best.value}"] = Contender(what, best.value, plain(**fast, compiled=True))
    return made


def _all_of_ours(chosen: Settings, best: str, compiles: bool) -> dict[str, Contender]:
    ours, made = partial(_ours, chosen), {}
    if chosen.device == "cuda":
        compiled = "compiled" if compiles else "eager"
        what = f"the complete step {compiled} and in one CUDA graph"
        made[f"{OURS} {best}"] = Contender(what, best, ours(best, compiles, capture=True))
        what = f"the same, {compiled}, launched kernel by kernel"
        made[f"{OURS} {best} not captured"] = Contender(what, best, ours(best, compiles, capture=False))
        return made
    for precision in dict.fromkeys(("fp32", best)):
        made[f"{OURS} eager {precision}"] = Contender("eager", precision, ours(precision, False, capture=False))
    if compiles:
        made[f"{OURS} compiled {best}"] = Contender("torch.compile", best, ours(best, True, capture=False))
    return made


def reference(chosen: Settings) -> Contender:
    """Our step in its simplest form, eager and in float32: the first steps of all of ours are compared with it."""
    return Contender("eager", "fp32", _ours(chosen, "fp32", False, capture=False))


def _plain(chosen: Settings, **options):
    def build_plain(pixels: Tensor, noise: Tensor):
        step = plain_step(chosen, device=chosen.device, **options)
        last = {}

        def call() -> None:
            with tuned(chosen.device):  # ours run as a training run sets torch, so that both share compiled code
                last.update(step(pixels, noise))

        return Built(call, lambda: {name: value.item() for name, value in last.items()})

    return build_plain


class FixedBatch:
    """A feed whose every batch is the same, already on the device."""

    state: tuple[Tensor, ...] = ()

    def __init__(self, pixels: Tensor):
        self.order = SimpleNamespace(batch_size=len(pixels))
        self._pixels = pixels

    def ready(self, step: int) -> None:
        """There is nothing to wait for."""

    def batch(self) -> tuple[Tensor, None]:
        """uint8 [B, H, W, 3], and no flips."""
        return self._pixels, None


def _ours(chosen: Settings, precision: str, compiles: bool, *, capture: bool):
    def build_ours(pixels: Tensor, noise: Tensor):
        training = build(
            Config(
                recipe="celeba64",
                objective=replace(_RECIPE, vgg="random", layers=chosen.layers),
                model=ModelConfig(image_size=chosen.image_size, width=chosen.width),
                train=TrainConfig(
                    batch_size=max(len(pixels), 2),
                    device=chosen.device,
                    precision=precision,
                    compile="on" if compiles else "off",
                ),
            )
        )
        device = torch.device(chosen.device)
        take_weights(training.objective, plain_step(chosen))
        LearningRates(training.updates, 1.0, device)  # on the device, as in a run
        # Room for every step, since reading it would wait for the device.
        meter = Meter((chosen.rounds + 16) * chosen.steps_per_sample, device)
        generator = torch.Generator(device).manual_seed(SEED)
        runner = Runner(training.step, FixedBatch(pixels), generator, meter, capture=capture)
        number = itertools.count()
        networks = dict(training.objective.networks)
        return Built(lambda: runner(next(number)), lambda: meter.read().means, networks)

    return build_ours


@cache
def loss_network(layers: tuple[str, ...]) -> LossNetwork:
    """The weights that all plain steps copy, on the CPU."""
    return load_loss_network("random", taps=layers)


def plain_step(chosen: Settings, **options) -> PlainStep:
    """The plain step at these settings' size, with the seed's weights."""
    torch.manual_seed(SEED)
    scale = critic_form(_RECIPE).label_scale
    return PlainStep(
        loss_network(chosen.layers), chosen.width, image_size=chosen.image_size, label_scale=scale, **options
    )
