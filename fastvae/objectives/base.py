"""The interface between the trainer and an objective.

An objective owns its networks and defines what each step computes and which networks its gradients update. To add one,
write a file beside this one with a dataclass of options and a subclass of `Objective`, and list both in `__init__.py`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fastvae.config import ModelConfig
from fastvae.kernels.dispatch import map_format
from fastvae.optim import ClippedAdam

Terms = Mapping[str, Tensor]
LossFunction = Callable[[Tensor, Tensor], tuple[Tensor, dict[str, Tensor]]]


@dataclass(frozen=True)
class Pass:
    """One forward and one backward pass, and the updates that use its gradients.

    Attributes:
        name: unique among the objective's passes; each is compiled once.
        loss: (images [B, 3, H, W] in [-1, 1], noise [B, noise_size]) -> the scalar to differentiate and the
            detached scalar terms to log. It is compiled as one graph, so it must not depend on Python state that
            changes between steps.
        updates: names of the updates to apply, in order.
        decide: terms that follow from the loss's terms, such as the gates of updates. Of several ranks, from their
            means over all ranks, so that all decide the same; alone it is compiled with the loss.
    """

    name: str
    loss: LossFunction
    updates: tuple[str, ...]
    decide: Callable[[Terms], dict[str, Tensor]] = lambda terms: {}


@dataclass(frozen=True)
class Update:
    """One optimiser, with optional gradient clipping before it.

    Attributes:
        optimizer: updates the parameters in place; the schedule scales each group's initial `lr`. With a gate it is
            one of `fastvae.optim`.
        clip_gradients: largest absolute value of a gradient's entry; None for no clipping.
        gate: name of a term of the pass. If that term is zero, the update is skipped: parameters and the optimiser's
            state stay as they are. None: never skipped.
    """

    optimizer: torch.optim.Optimizer
    clip_gradients: float | None = None
    gate: str | None = None

    def apply(self, terms: Mapping[str, Tensor]) -> None:
        """Updates the parameters and clears their gradients.

        Args:
            terms: the pass's terms, scalars on the device.
        """
        if self.clip_gradients is not None:
            params = [p for group in self.optimizer.param_groups for p in group["params"]]
            nn.utils.clip_grad_value_(params, self.clip_gradients)
        if self.gate is None:
            self.optimizer.step()
        else:
            self.optimizer.step(gate=terms[self.gate])
        self.optimizer.zero_grad(set_to_none=True)


@dataclass(frozen=True)
class Averaged:
    """Networks whose weights a run may average over its steps (`--ema`).

    Attributes:
        networks: their names in `Objective.networks`.
        update: name of the update that changes them; only steps that apply it count.
    """

    networks: tuple[str, ...]
    update: str


class Objective(ABC):
    """Networks, losses and update order of one system.

    Attributes:
        title: human-readable name of the system, for figures and model cards.
        description: its losses in a few words.
        networks: the networks that are trained and saved, by name. A VAE's are called "encoder" and "decoder".
        noise_size: standard normal numbers per image that a step needs.
        loss_network: the frozen network of the feature loss, or None; not saved. An objective that has one also has a
            method `feature_distance(fake_features, features)`, which evaluations log.
        averaged: the networks that encode and draw images: those that `--ema` averages.
        kl_share: with `--kl-warmup` the share of the KL divergence's weight that the next step has, a 0-D float32
            tensor that the trainer sets; else None.
    """

    title: str
    description: str
    networks: dict[str, nn.Module]
    noise_size: int
    loss_network: nn.Module | None = None
    averaged: tuple[Averaged, ...]
    kl_share: Tensor | None = None

    @abstractmethod
    def __init__(self, options, model: ModelConfig, loss_network: nn.Module | None): ...

    @abstractmethod
    def passes(self, step: int) -> Sequence[Pass]:
        """The passes of step number `step`, from 0, in order."""

    @abstractmethod
    def updates(self, lr: float) -> dict[str, Update]:
        """New optimisers by name; `lr` is the recipe's initial learning rate."""

    @classmethod
    def taps(cls, options) -> tuple[str, ...]:
        """Layers of the loss network whose features it needs; by default none, and then the network is not loaded.

        An objective that needs some has an option `vgg`, which names the network's weights.
        """
        return ()

    def balance(self, images: Tensor, noise: Tensor) -> dict[str, Tensor]:
        """Optional diagnostics, logged every `balance_every` steps; they cost passes of their own. Default: none.

        While `steered` numbers are still unmeasured, it is called after the next step in any case.
        """
        return {}

    def steer(self, measured: Terms) -> None:  # noqa: B027
        """Adjusts the numbers of `steered` to what `balance` measured, without waiting for the device.

        Called after each measurement, with the means over all ranks, so that all adjust alike. Default: nothing.
        """

    def steered(self) -> dict[str, Tensor]:
        """The numbers that `steer` changes in place, 0-D and above 0, by name; checkpoints hold them."""
        return {}

    def systems(self) -> dict[str, "Objective"]:
        """The systems that it trains, by name; each is evaluated separately. By default only itself, named ""."""
        return {"": self}

    def reconstruct(self, images: Tensor) -> Tensor | None:
        """Images [B, 3, H, W] in [-1, 1] -> their reconstructions, or None if the system has no encoder."""
        return None

    @abstractmethod
    def sample(self, noise: Tensor) -> Tensor:
        """Noise [B, noise_size] -> images [B, 3, H, W] in [-1, 1]."""

    def to(self, device: torch.device) -> "Objective":
        """Moves all networks to the device, convolutions in `map_format`; call before `updates`."""
        for network in [*self.networks.values(), self.loss_network]:
            if network is not None:
                network.to(device, memory_format=map_format(device))
        if self.kl_share is not None:
            self.kl_share = self.kl_share.to(device)
        return self

    def train(self, mode: bool = True) -> None:
        """Sets training mode (batch statistics) or evaluation mode (running statistics) of the trained networks."""
        for network in self.networks.values():
            network.train(mode)


def adam(networks: Sequence[nn.Module], lr: float) -> torch.optim.Optimizer:
    """Adam with the paper's settings (section 4.1), for all parameters of the networks."""
    return ClippedAdam([p for n in networks for p in n.parameters()], lr=lr, betas=(0.5, 0.999))
