"""The recipes: named configs that `fastvae train NAME` starts from."""

from dataclasses import dataclass, field, replace
from typing import Any

from fastvae.config import Config, ModelConfig, TrainConfig
from fastvae.lossnet.network import TAPS
from fastvae.objectives.dcgan import DcganOptions
from fastvae.objectives.dfc_vae import DfcVaeOptions
from fastvae.objectives.lsgan import LsganOptions
from fastvae.objectives.multi_view import MultiViewOptions
from fastvae.objectives.plain_vae import PlainVaeOptions
from fastvae.objectives.vae_gan import VaeGanOptions
from fastvae.objectives.vae_wgan import VaeWganOptions
from fastvae.objectives.wgan import WganOptions


@dataclass(frozen=True)
class Recipe:
    """A named config.

    Attributes:
        description: one sentence, for `fastvae train NAME --help`.
        config: of the complete run; it holds the recipe's name.
    """

    description: str
    config: Config

    def __call__(self) -> Config:
        """The config."""
        return self.config

    @property
    def name(self) -> str:
        """The recipe's name."""
        return self.config.recipe

    def derive(self, name: str, description: str, objective=None, **changes) -> "Recipe":
        """A recipe that differs from this one in some fields.

        Args:
            name: its name; one that starts with "-" is appended to this recipe's name.
            description: as the attribute.
            objective: options of the objective; None for those of this recipe.
            changes: fields of `Config`.
        """
        name = self.name + name if name.startswith("-") else name
        objective = self.config.objective if objective is None else objective
        return Recipe(description, replace(self.config, recipe=name, objective=objective, **changes))


DEMO = Recipe(
    "VAE-WGAN on the embedded faces with the stand-in loss network: needs no download; minutes on two cores.",
    Config(
        recipe="demo",
        # What eight minutes on two cores are best spent on: METHOD.md, "The demo".
        objective=VaeWganOptions(vgg="random", layers=("relu1_1",), alpha=0.009, critic="held"),
        model=ModelConfig(width=16, latent=24),
        train=TrainConfig(
            epochs=12,
            minutes=8.0,  # of training, on machines that do not get through the epochs sooner
            lr=1e-3,
            lr_decay=0.85,
            ema=0.999,
            batch_size=16,
            evaluate_every=200,
            pictures_every=200,
            checkpoint_minutes=1.0,
            balance_every=50,
        ),
    ),
)

# What runs support (METHOD.md, "The critic's balance"): the KL's weight, the paper's own on CIFAR-10 and half of it on
# CelebA, rising over the first of five epochs, and a critic held to a quarter of the feature loss's gradient.
_BALANCED = VaeWganOptions(alpha=0.5, beta=0.5, kl_warmup=0.2, critic="held")
# Alone, a layer's feature loss is 2 % (relu5_1) to 47 % (relu4_1) of all five's: beside the smallest the KL would win.
_ONE_LAYER = replace(_BALANCED, layer_weights="equal")
_AVERAGED = TrainConfig(ema=0.999, balance_every=20)

CELEBA64 = Recipe(
    "The paper's run on CelebA at 64x64, with half the KL, which rises, and a critic that is held; give --data.",
    Config(recipe="celeba64", objective=_BALANCED, data="celeba64.fvae", train=_AVERAGED),
)

CELEBA128 = CELEBA64.derive(
    "celeba128",
    "celeba64 at 128x128, with a fifth stage; give --data.",
    data="celeba128.fvae",
    model=ModelConfig(image_size=128),
)

CIFAR10 = CELEBA64.derive(
    "cifar10",
    "The paper's run on CIFAR-10 at its native 32x32, with a KL that rises and a critic that is held; give --data.",
    objective=replace(_BALANCED, alpha=1.0),
    data="cifar10.fvae",
    model=ModelConfig(image_size=32),
)

FACES128 = DEMO.derive(
    "faces128",
    "The demo at 128x128, with a fifth stage: needs no download; twenty minutes on two cores.",
    model=replace(DEMO.config.model, image_size=128),
    # An image costs four times the demo's: twenty minutes are for two thirds of its images.
    train=replace(DEMO.config.train, epochs=8, lr_decay=0.8, minutes=20.0, held_out=128),
)

# Algorithm 1 and equations 5 to 8, every value written out, so that it stays what it is if defaults move.
_LITERAL = VaeWganOptions(
    alpha=1.0,
    beta=0.5,
    layers=TAPS,
    layer_weights="paper",
    kl_warmup=0.0,
    critic="paper",
    label_scale=10.0,
    clip=0.01,
    clipped="weights",
    critic_optimizer="adam",
    adversarial="wasserstein",
    order="together",
)
_SCHEDULE = TrainConfig(epochs=5, batch_size=64, lr=5e-4, lr_decay=0.5, ema=0.0, flip=False)
_LITERALLY = (
    "as Algorithm 1 and equations 5 to 8 read literally: alpha 1, beta 0.5, labels of 10, all of the critic clipped"
)

# The demo and the paper's own model.
_PAPER = (
    DEMO,
    FACES128,
    CELEBA64,
    CELEBA64.derive("-literal", f"celeba64 {_LITERALLY}; give --data.", _LITERAL, train=_SCHEDULE),
    CELEBA64.derive("-wide", "celeba64 with twice the width.", model=ModelConfig(width=64)),
    CELEBA64.derive(
        "-multiview",
        "Five VAE-WGANs in one process, each with the feature loss of one layer (4.4, Fig. 14); give --data.",
        MultiViewOptions(**vars(_ONE_LAYER)),
    ),
    CELEBA128,
    CIFAR10,
    CIFAR10.derive("-literal", f"cifar10 {_LITERALLY}; give --data.", _LITERAL, train=_SCHEDULE),
)


@dataclass(frozen=True)
class _System:
    name: str
    description: str
    objective: Any
    width: int = 32
    # None for the paper's, which is halved after every epoch.
    lr: float | None = None
    # What its authors' code sets differently for CIFAR-10.
    on_cifar10: dict[str, float] = field(default_factory=dict)


# DFC-VAE in the balance of its authors' code (github.com/houxianxu/DFC-VAE), with which this paper compares: the KL
# summed over z and the batch of 40, beside 0.5 times the mean of d^2 over each layer's elements and the batch. That is,
# for each image, L_kl + 0.5/40 sum_l mean d_l^2; and eq. 5's L_l is half of that mean.
_DFC_BETA = 2 * 0.5 / 40

_SYSTEMS = (
    _System("plain", "Plain VAE: pixel loss", PlainVaeOptions()),
    _System("dfc-123", "DFC-VAE: feature loss on relu1_1 to relu3_1, no critic", DfcVaeOptions(beta=_DFC_BETA)),
    _System(
        "dfc-345",
        "DFC-VAE: feature loss on relu3_1 to relu5_1, no critic",
        DfcVaeOptions(layers=("relu3_1", "relu4_1", "relu5_1"), beta=_DFC_BETA),
    ),
    _System("dcgan", "DCGAN: binary cross-entropy, no encoder", DcganOptions(), width=64, lr=2e-4),
    _System(
        "wgan", "WGAN: clipped critic, five of its steps for one of the generator", WganOptions(), width=64, lr=5e-5
    ),
    _System(
        "vae-gan",
        "VAE/GAN: compares features of the discriminator",
        VaeGanOptions(),
        lr=4e-4,
        on_cifar10={"gamma": 1e-5},
    ),
    _System(
        "lsgan",
        "LSGAN: loss-sensitive, margins that grow with distance",
        LsganOptions(),
        width=64,
        lr=1e-4,
        on_cifar10={"margin": 8e-4},
    ),
)

# The systems that the paper compares with (4.2, Figs. 3 to 6), on both of its data sets. Learning rates and optimisers
# are those of each system's source; batch size, epochs and latent size are this paper's. All have the average of their
# weights, as the model that they are compared with has.
_COMPARED = tuple(
    base.derive(
        f"-{system.name}",
        f"{system.description}; give --data.",
        replace(system.objective, **(system.on_cifar10 if base is CIFAR10 else {})),
        model=ModelConfig(image_size=base.config.model.image_size, width=system.width),
        train=TrainConfig(ema=0.999, **({} if system.lr is None else {"lr": system.lr, "lr_decay": 1.0})),
    )
    for base in (CELEBA64, CIFAR10)
    for system in _SYSTEMS
)


def _ablation(name: str, description: str, base: VaeWganOptions = _BALANCED, **options):
    return CELEBA64.derive(name, f"{description}; give --data.", replace(base, **options))


# The paper's ablations of its model on CelebA: one layer, other loss weights, no reconstruction loss, other labels. The
# place of the paper's (alpha, beta) = (1, 0.5) is celeba64's, with its alpha of 0.5.
_ABLATIONS = (
    *(
        _ablation(
            f"-{tap}",
            f"celeba64 with the feature loss on {tap} alone, as strong as all five",
            _ONE_LAYER,
            layers=(tap,),
        )
        for tap in TAPS
    ),
    _ablation("-beta0.01", "celeba64 with alpha = 1, beta = 0.01 (4.2.4, Figs. 8 and 9)", alpha=1.0, beta=0.01),
    _ablation("-alpha0.01", "celeba64 with alpha = 0.01, beta = 1 (4.2.4, Figs. 8 and 9)", alpha=0.01, beta=1.0),
    _ablation(
        "-no-rec", "celeba64 without reconstruction loss (4.2.4, Fig. 10), label scale 30", critic="balanced", beta=0.0
    ),
    *(
        _ablation(
            f"-label{scale}",
            f"celeba64, critic to the letter, labels of {scale} (3.4)",
            critic="paper",
            label_scale=float(scale),
        )
        for scale in (1, 10, 100)
    ),
)

RECIPES: dict[str, Recipe] = {recipe.name: recipe for recipe in (*_PAPER, *_COMPARED, *_ABLATIONS)}
