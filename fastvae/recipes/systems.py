"""The systems that the paper compares with (4.2, Figs. 3 to 6), on both of its data sets.

Each has its own source's learning rate and optimiser, and this paper's batches, epochs and latent size.
"""

from dataclasses import dataclass
from typing import Any

from fastvae.config import ModelConfig, TrainConfig
from fastvae.objectives.dcgan import DcganOptions
from fastvae.objectives.dfc_vae import DfcVaeOptions
from fastvae.objectives.lsgan import LsganOptions
from fastvae.objectives.plain_vae import PlainVaeOptions
from fastvae.objectives.vae_gan import VaeGanOptions
from fastvae.objectives.wgan import WganOptions
from fastvae.recipes.paper import CELEBA64, CIFAR10


@dataclass(frozen=True)
class _System:
    name: str
    about: str
    objective: Any
    width: int = 32
    # None for the paper's own, which its schedule halves after every epoch.
    lr: float | None = None


_SYSTEMS = (
    _System("plain", "Plain VAE: pixel loss", PlainVaeOptions()),
    _System("dfc-123", "DFC-VAE: feature loss on relu1_1 to relu3_1, no critic", DfcVaeOptions()),
    _System(
        "dfc-345",
        "DFC-VAE: feature loss on relu3_1 to relu5_1, no critic",
        DfcVaeOptions(layers=("relu3_1", "relu4_1", "relu5_1")),
    ),
    _System("dcgan", "DCGAN: binary cross-entropy, no encoder", DcganOptions(), width=64, lr=2e-4),
    _System(
        "wgan", "WGAN: clipped critic, five of its steps for one of the generator", WganOptions(), width=64, lr=5e-5
    ),
    _System("vae-gan", "VAE/GAN: compares features of the discriminator", VaeGanOptions(), lr=3e-4),
    _System("lsgan", "LSGAN: loss-sensitive, margins that grow with distance", LsganOptions(), width=64, lr=1e-4),
)

RECIPES = tuple(
    base.derive(
        f"-{system.name}",
        f"{system.about}; give --data.",
        system.objective,
        model=ModelConfig(image_size=base.config.model.image_size, width=system.width),
        train=TrainConfig() if system.lr is None else TrainConfig(lr=system.lr, lr_decay=1.0),
    )
    for base in (CELEBA64, CIFAR10)
    for system in _SYSTEMS
)
