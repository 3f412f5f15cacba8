"""Five VAE-WGANs side by side, each with the feature loss of one layer: the views of the multi-view features.

The loss network sees the real images once for all views, and each view's generated images up to that view's layer.
Nothing else is shared: networks, optimisers and losses are those of as many separate runs with the same seed, since
every view begins with the same draws of weights and is given the same batches and the same noise.

Source: Hou et al., section 4.4 and figure 14.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from fastvae.config import ModelConfig
from fastvae.lossnet.network import LossNetwork, tap_indices
from fastvae.objectives.base import Objective, Pass, Update
from fastvae.objectives.vae_wgan import VaeWgan, VaeWganOptions


@dataclass(frozen=True)
class MultiViewOptions(VaeWganOptions):
    """Options of every view, as the VAE-WGAN has them; `layers` gives one view each."""


class MultiView(Objective):
    """One `VaeWgan` for each layer. Its networks are called "relu1_1.encoder" and so on."""

    def __init__(self, options: MultiViewOptions, model: ModelConfig, loss_network: LossNetwork):
        self.options, self.loss_network, self.noise_size = options, loss_network, model.latent
        self.views: dict[str, VaeWgan] = {}
        draws = torch.get_rng_state()
        for layer in tap_indices(options.layers):
            torch.set_rng_state(draws)  # as a run of its own would begin
            view = VaeWganOptions(**vars(replace(options, layers=(layer,))))
            self.views[layer] = VaeWgan(view, model, loss_network.part(VaeWgan.taps(view)))
        self.networks = {f"{v}.{n}": network for v, view in self.views.items() for n, network in view.networks.items()}

    @classmethod
    def taps(cls, options: MultiViewOptions) -> tuple[str, ...]:
        return VaeWgan.taps(options)

    def parts(self) -> dict[str, Objective]:
        return dict(self.views)

    def passes(self, step: int) -> Sequence[Pass]:
        of_views = {name: view.passes(step) for name, view in self.views.items()}
        return tuple(
            Pass(
                together[0].name,
                partial(self._sum, [part.loss for part in together]),
                tuple(
                    f"{name}.{update}" for name, part in zip(of_views, together, strict=True) for update in part.updates
                ),
            )
            for together in zip(*of_views.values(), strict=True)
        )

    def updates(self, lr: float) -> dict[str, Update]:
        return {f"{v}.{n}": update for v, view in self.views.items() for n, update in view.updates(lr).items()}

    def _sum(self, losses, images: Tensor, noise: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        # No parameter has a part in two of the losses, so the gradients of their sum are those of each alone.
        with torch.no_grad():
            features = dict(zip(self.loss_network.taps, self.loss_network(images), strict=True))
        total, reported = 0, {}
        for (name, view), loss in zip(self.views.items(), losses, strict=True):
            value, terms = loss(images, noise, tuple(features[tap] for tap in view.loss_network.taps))
            total = total + value
            reported |= {f"{name}_{term}": t for term, t in terms.items()}
        return total, reported

    def balance(self, images: Tensor, noise: Tensor) -> dict[str, Tensor]:
        found = {name: view.balance(images, noise) for name, view in self.views.items()}
        return {f"{name}_{term}": value for name, terms in found.items() for term, value in terms.items()}

    def sample(self, noise: Tensor) -> Tensor:
        raise NotImplementedError("each view samples for itself: see `parts`")

    def to(self, device: torch.device) -> "MultiView":
        super().to(device)
        for view in self.views.values():
            view.loss_network.to(device, memory_format=torch.channels_last)
        return self
