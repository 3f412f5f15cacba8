"""The recipes: what `fastvae train NAME` starts from. Each is a function that returns a Config."""

from collections.abc import Callable
from dataclasses import replace

from fastvae.config import Config, ModelConfig, TrainConfig
from fastvae.objectives.dfc_vae import DfcVaeOptions
from fastvae.objectives.plain_vae import PlainVaeOptions
from fastvae.objectives.vae_wgan import VaeWganOptions


def demo() -> Config:
    """VAE-WGAN on the embedded faces with the stand-in loss network: needs no download; minutes on two cores."""
    return Config(
        recipe="demo",
        # A run of minutes: two thirds of the loss network's arithmetic lie above relu3_1, and the paper's alpha of 1
        # would hold the posterior closed for longer than the demo lasts.
        objective=VaeWganOptions(vgg="random", layers=("relu1_1", "relu2_1", "relu3_1"), alpha=0.3, critic="paper"),
        model=ModelConfig(width=16),
        train=TrainConfig(
            epochs=5,
            lr=1e-3,
            lr_decay=0.7,
            batch_size=32,
            evaluate_every=100,
            pictures_every=100,
            checkpoint_every=100,
            balance_every=50,
        ),
    )


def celeba64() -> Config:
    """The paper's run on CelebA at 64x64, but for the critic's label scale (--critic paper is literal); give --data."""
    return Config(recipe="celeba64", objective=VaeWganOptions(critic="balanced"), data="celeba64.fvae")


def celeba64_wide() -> Config:
    """celeba64 with twice the width."""
    return replace(celeba64(), recipe="celeba64-wide", model=ModelConfig(width=64))


def cifar10() -> Config:
    """The paper's run on CIFAR-10 at its native 32x32; give --data."""
    return Config(
        recipe="cifar10",
        objective=VaeWganOptions(critic="balanced"),
        data="cifar10.fvae",
        model=ModelConfig(image_size=32),
    )


def celeba64_dfc() -> Config:
    """DFC-VAE on CelebA: feature loss on relu1_1 to relu3_1, no critic; give --data."""
    return replace(celeba64(), recipe="celeba64-dfc", objective=DfcVaeOptions())


def celeba64_plain() -> Config:
    """Plain VAE on CelebA: pixel loss; give --data."""
    return replace(celeba64(), recipe="celeba64-plain", objective=PlainVaeOptions())


RECIPES: dict[str, Callable[[], Config]] = {
    "demo": demo,
    "celeba64": celeba64,
    "celeba64-wide": celeba64_wide,
    "cifar10": cifar10,
    "celeba64-dfc": celeba64_dfc,
    "celeba64-plain": celeba64_plain,
}
