"""The demo and the paper's own model."""

from fastvae.config import Config, ModelConfig, TrainConfig
from fastvae.objectives.multi_view import MultiViewOptions
from fastvae.objectives.vae_wgan import VaeWganOptions
from fastvae.recipes.recipe import Recipe

DEMO = Recipe(
    "VAE-WGAN on the embedded faces with the stand-in loss network: needs no download; minutes on two cores.",
    Config(
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
    ),
)

CELEBA64 = Recipe(
    "The paper's run on CelebA at 64x64, but for the critic's label scale (--critic paper is literal); give --data.",
    Config(recipe="celeba64", objective=VaeWganOptions(critic="balanced"), data="celeba64.fvae"),
)

CIFAR10 = CELEBA64.derive(
    "cifar10",
    "The paper's run on CIFAR-10 at its native 32x32; give --data.",
    data="cifar10.fvae",
    model=ModelConfig(image_size=32),
)

RECIPES = (
    DEMO,
    CELEBA64,
    CELEBA64.derive("-wide", "celeba64 with twice the width.", model=ModelConfig(width=64)),
    CELEBA64.derive(
        "-multiview",
        "Five VAE-WGANs in one process, each with the feature loss of one layer (4.4, Fig. 14); give --data.",
        MultiViewOptions(critic="balanced"),
    ),
    CIFAR10,
)
