"""What the trainer knows of an objective, and all that it knows.

An objective owns its networks, says what each step computes and which networks move by which gradients. A new one
is a new file beside this one: a dataclass of options, a subclass of `Objective`, and a line in `__init__.py`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fastvae.config import ModelConfig
from fastvae.optim import ClippedAdam

LossFunction = Callable[[Tensor, Tensor], tuple[Tensor, dict[str, Tensor]]]


@dataclass(frozen=True)
class Pass:
    """One forward and one backward pass, then the updates that use its gradients.

    Attributes:
        name: its key among the passes of an objective; each is compiled once.
        loss: (images [B, 3, H, W] in [-1, 1], noise [B, noise_size]) -> the scalar to differentiate and the
            detached scalar terms to report. It is compiled as one graph, so it must not depend on Python state
            that changes between steps.
        updates: names of the updates to apply, in order.
    """

    name: str
    loss: LossFunction
    updates: tuple[str, ...]


@dataclass(frozen=True)
class Update:
    """One optimiser and the gradient clipping before it.

    Attributes:
        optimizer: moves the parameters in place; the schedule scales the `lr` that each group starts with.
        clip_gradients: largest absolute value of a gradient's entry; None for no clipping.
        gate: a term of the pass; where it is zero, parameters and optimiser stay as they are. None for always.
    """

    optimizer: torch.optim.Optimizer
    clip_gradients: float | None = None
    gate: str | None = None

    def apply(self, terms: Mapping[str, Tensor]) -> None:
        """Moves the parameters by their gradients and forgets the gradients.

        Args:
            terms: of the pass, scalars on the device.
        """
        if self.clip_gradients is not None:
            params = [p for group in self.optimizer.param_groups for p in group["params"]]
            nn.utils.clip_grad_value_(params, self.clip_gradients)
        if self.gate is None:
            self.optimizer.step()
        else:
            self._step_if(terms[self.gate] != 0)
        self.optimizer.zero_grad(set_to_none=True)

    @torch.no_grad()
    def _step_if(self, moves: Tensor) -> None:
        # The host must not wait for the decision, and a captured step cannot: so step, and take it back.
        before = {id(t): (t, t.clone()) for t in self._tensors()}
        self.optimizer.step()
        for tensor in self._tensors():
            _, old = before.get(id(tensor), (None, torch.zeros_like(tensor)))  # states begin at zero
            tensor.copy_(torch.where(moves, tensor, old))

    def _tensors(self) -> list[Tensor]:
        params = [p for group in self.optimizer.param_groups for p in group["params"]]
        return params + [t for s in self.optimizer.state.values() for t in s.values() if isinstance(t, Tensor)]


class Objective(ABC):
    """Networks, losses and the order of updates of one system.

    Attributes:
        networks: what is trained and saved, by name. A VAE's are called "encoder" and "decoder".
        noise_size: standard normal numbers that a step needs per image.
        loss_network: the frozen network behind the feature loss, or None. Not saved. An objective that has one also
            has `feature_distance(fake_features, features)`, which evaluations report.
    """

    networks: dict[str, nn.Module]
    noise_size: int
    loss_network: nn.Module | None = None

    @abstractmethod
    def __init__(self, options, model: ModelConfig, loss_network: nn.Module | None): ...

    @abstractmethod
    def passes(self, step: int) -> Sequence[Pass]:
        """What step number `step` (from 0) computes, in order."""

    @abstractmethod
    def updates(self, lr: float) -> dict[str, Update]:
        """Fresh optimisers by name; `lr` is the recipe's initial learning rate."""

    @classmethod
    def taps(cls, options) -> tuple[str, ...]:
        """Which feature maps of the loss network it needs; none by default, and then none is loaded.

        An objective that needs some has an option `vgg`, the network's weights.
        """
        return ()

    def balance(self, images: Tensor, noise: Tensor) -> dict[str, Tensor]:
        """Extra scalars worth logging now and then, at the cost of a pass of their own; {} by default."""
        return {}

    def parts(self) -> dict[str, "Objective"]:
        """The systems that it trains, by name, to be evaluated and pictured each; itself alone, as "", by default."""
        return {"": self}

    def reconstruct(self, images: Tensor) -> Tensor | None:
        """Images [B, 3, H, W] in [-1, 1] -> their reconstructions, or None where the system has no encoder."""
        return None

    @abstractmethod
    def sample(self, noise: Tensor) -> Tensor:
        """Noise [B, noise_size] -> images [B, 3, H, W] in [-1, 1]."""

    def to(self, device: torch.device) -> "Objective":
        """Moves all networks to the device, convolutions in channels_last; call before `updates`."""
        for network in [*self.networks.values(), self.loss_network]:
            if network is not None:
                network.to(device, memory_format=torch.channels_last)
        return self

    def train(self, mode: bool = True) -> None:
        """Switches the trained networks between batch and running statistics."""
        for network in self.networks.values():
            network.train(mode)


def adam(networks: Sequence[nn.Module], lr: float) -> torch.optim.Optimizer:
    """Adam as the paper sets it (section 4.1), over all parameters of the networks."""
    return ClippedAdam([p for n in networks for p in n.parameters()], lr=lr, betas=(0.5, 0.999))
