"""Multi-view features: one VAE-WGAN for each layer of the feature loss, trained side by side.

The loss network computes the features of the real images once for all views, and those of each view's generated images
up to that view's layer. Nothing else is shared. Networks, optimisers and losses are those of separate runs with the
same seed, since every view starts from the same initial weights and gets the same batches and noise.

Source: Hou et al., section 4.4 and figure 14.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from fastvae.config import ModelConfig
from fastvae.lossnet.network import LossNetwork, tap_indices
from fastvae.objectives.base import Averaged, Objective, Pass, Terms, Update
from fastvae.objectives.vae_wgan import VaeWgan, VaeWganOptions


@dataclass(frozen=True)
class MultiViewOptions(VaeWganOptions):
    """Options of the VAE-WGAN, used for every view; each of `layers` is one view."""


class MultiView(Objective):
    """One `VaeWgan` per layer. Its networks are called "relu1_1.encoder" and so on."""

    title = "Multi-view VAE-WGAN"
    description = "one VAE-WGAN for the feature loss of each layer"

    def __init__(self, options: MultiViewOptions, model: ModelConfig, loss_network: LossNetwork):
        self.options, self.loss_network, self.noise_size = options, loss_network, model.latent
        self.views: dict[str, VaeWgan] = {}
        rng_state = torch.get_rng_state()
        for layer in tap_indices(options.layers):
            torch.set_rng_state(rng_state)  # every view starts as a separate run would
            view = VaeWganOptions(**vars(replace(options, layers=(layer,))))
            self.views[layer] = VaeWgan(view, model, loss_network.part(VaeWgan.taps(view)))
        self.networks = {f"{v}.{n}": network for v, view in self.views.items() for n, network in view.networks.items()}
        # All in one, since they move in the same steps: one launch averages them.
        names = tuple(f"{v}.{name}" for v in self.views for name in ("encoder", "decoder"))
        self.averaged = (Averaged(names, f"{next(iter(self.views))}.vae"),)
        self._share_kl(torch.ones(()) if options.kl_warmup else None)

    @classmethod
    def taps(cls, options: MultiViewOptions) -> tuple[str, ...]:
        return VaeWgan.taps(options)

    def systems(self) -> dict[str, Objective]:
        return dict(self.views)

    def passes(self, step: int) -> Sequence[Pass]:
        of_views = {name: view.passes(step) for name, view in self.views.items()}
        return tuple(
            Pass(
                together[0].name,
                partial(self._sum, [pass_.loss for pass_ in together]),
                tuple(
                    f"{name}.{update}"
                    for name, pass_ in zip(of_views, together, strict=True)
                    for update in pass_.updates
                ),
            )
            for together in zip(*of_views.values(), strict=True)
        )

    def updates(self, lr: float) -> dict[str, Update]:
        return {f"{v}.{n}": update for v, view in self.views.items() for n, update in view.updates(lr).items()}

    def _sum(self, losses, images: Tensor, noise: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        # No parameter is in two of the losses, so the gradients of their sum are those of each loss alone.
        with torch.no_grad():
            features = dict(zip(self.loss_network.taps, self.loss_network(images), strict=True))
        total, all_terms = 0, {}
        for (name, view), loss in zip(self.views.items(), losses, strict=True):
            value, terms = loss(images, noise, tuple(features[tap] for tap in view.loss_network.taps))
            total = total + value
            all_terms |= {f"{name}_{term}": t for term, t in terms.items()}
        return total, all_terms

    def balance(self, images: Tensor, noise: Tensor) -> dict[str, Tensor]:
        by_view = {name: view.balance(images, noise) for name, view in self.views.items()}
        return {f"{name}_{term}": value for name, terms in by_view.items() for term, value in terms.items()}

    def steer(self, measured: Terms) -> None:
        for name, view in self.views.items():
            view.steer({term.removeprefix(f"{name}_"): value for term, value in measured.items()})

    def steered(self) -> dict[str, Tensor]:
        return {f"{v}.{name}": number for v, view in self.views.items() for name, number in view.steered().items()}

    def sample(self, noise: Tensor) -> Tensor:
        raise NotImplementedError("sample from each view: see `systems`")

    def to(self, device: torch.device) -> "MultiView":
        super().to(device)
        for view in self.views.values():
            view.to(device)
        self._share_kl(self.kl_share)
        return self

    def _share_kl(self, share: Tensor | None) -> None:
        for objective in (self, *self.views.values()):
            objective.kl_share = share
