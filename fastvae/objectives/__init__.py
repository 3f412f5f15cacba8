"""The systems that can be trained, one file each; this table is the only list of them."""

from fastvae.objectives.base import Averaged, Objective, Pass, Update
from fastvae.objectives.dcgan import Dcgan, DcganOptions
from fastvae.objectives.dfc_vae import DfcVae, DfcVaeOptions
from fastvae.objectives.lsgan import Lsgan, LsganOptions
from fastvae.objectives.multi_view import MultiView, MultiViewOptions
from fastvae.objectives.plain_vae import PlainVae, PlainVaeOptions
from fastvae.objectives.vae_gan import VaeGan, VaeGanOptions
from fastvae.objectives.vae_wgan import VaeWgan, VaeWganOptions
from fastvae.objectives.wgan import Wgan, WganOptions

# name in a run's config.json -> (options, objective)
OBJECTIVES = {
    "vae_wgan": (VaeWganOptions, VaeWgan),
    "dfc_vae": (DfcVaeOptions, DfcVae),
    "plain_vae": (PlainVaeOptions, PlainVae),
    "multi_view": (MultiViewOptions, MultiView),
    "vae_gan": (VaeGanOptions, VaeGan),
    "dcgan": (DcganOptions, Dcgan),
    "wgan": (WganOptions, Wgan),
    "lsgan": (LsganOptions, Lsgan),
}


def name_of(options) -> str:
    """The objective's name in `OBJECTIVES`, from its options."""
    return next(name for name, (cls, _) in OBJECTIVES.items() if cls is type(options))


def title_of(name: str) -> str:
    """An objective's title, from its name in `OBJECTIVES`; a name that this version does not know, in capitals."""
    return OBJECTIVES[name][1].title if name in OBJECTIVES else name.replace("_", "-").upper()


__all__ = ["OBJECTIVES", "Averaged", "Objective", "Pass", "Update", "name_of", "title_of"]
