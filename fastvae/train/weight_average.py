"""The exponential moving average of a run's weights (EMA), updated inside the captured step."""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor

from fastvae.machine import unlimited_compilations
from fastvae.objectives import Averaged, Objective, Update
from fastvae.train.checkpoint_files import AVERAGES


class WeightAverage:
    """The moving average of the networks that an objective names in `averaged`.

    After each update of these networks

        average = average + w (weights - average)        w = max(1 - decay, 9 / (10 + t))

    where t counts the updates averaged before. So the decay is min(decay, (1 + t) / (10 + t)), as in TensorFlow's
    ExponentialMovingAverage: at first the average spans about a ninth of the steps so far, and the initial weights are
    soon forgotten. The running statistics of batch normalisations are averaged with the weights, by the same w: the
    average then normalises by what the weights in its window saw, while a copy would be ahead of it.

    t and w are on the device, and so is the gate of an update, which is read there: a captured step averages as its
    replay requires. Memory: as much as the averaged weights, in float32.

    Args:
        objective: on its device; its weights are the average's first value.
        updates: the objective's optimisers, by name.
        decay: in (0, 1).
        compile_weight: compute w in one compiled kernel, instead of several small ones.

    Attributes:
        state: the tensors that `update` changes.
    """

    def __init__(
        self, objective: Objective, updates: Mapping[str, Update], decay: float, *, compile_weight: bool = False
    ):
        self._groups = [_Group(objective, of, updates[of.update].gate, decay) for of in objective.averaged]
        self._compiled = compile_weight
        self._next_weight = torch.compile(_next_weight, fullgraph=True, dynamic=False) if compile_weight else None
        self.state = [t for group in self._groups for t in (*group.averages, group.count, group.weight)]

    @torch.no_grad()
    def update(self, applied: Collection[str], terms: Mapping[str, Tensor]) -> None:
        """Averages the networks that a step has updated.

        Args:
            applied: names of the updates that the step applied.
            terms: its terms, scalars on the device, in which the gates are.
        """
        with unlimited_compilations() if self._compiled else nullcontext():
            for group in self._groups:
                if group.of.update in applied:
                    group.update(self._next_weight or _next_weight, terms)

    @torch.no_grad()
    def restart(self) -> None:
        """Begins the average again, with the weights as they are now."""
        for group in self._groups:
            for average, weight in zip(group.averages, group.weights, strict=True):
                average.copy_(weight)
            group.count.zero_()

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """The objective's networks hold the averages instead of the weights inside; nothing is copied."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    def tensors(self) -> dict[str, Tensor]:
        """Its state by the names in a checkpoint.

        The averaged networks' state dicts, with averages in place of weights, and for each update how many were
        averaged, 0-D float32.
        """
        found = {}
        for group in self._groups:
            found |= {f"{AVERAGES}{name}": tensor.detach() for name, tensor in group.tensors.items()}
            found |= group.saved
        return found

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Copies what `tensors` gave into the average."""
        for group in self._groups:
            for name, own in group.saved.items():
                own.copy_(tensors[name])

    def _exchange(self) -> None:
        for group in self._groups:
            for weight, average in zip(group.weights, group.averages, strict=True):
                weight.data, average.data = average.data, weight.data


class _Group:
    """The averages of networks that move together."""

    def __init__(self, objective: Objective, of: Averaged, gate: str | None, decay: float):
        self.of, self._gate, self._decay = of, gate, decay
        self.tensors: dict[str, Tensor] = {
            f"{name}.{key}": value
            for name in of.networks
            for key, value in objective.networks[name].state_dict(keep_vars=True).items()
        }
        # All but the batches that a BN has counted, an integer that nothing changes.
        self.names = [name for name, t in self.tensors.items() if t.is_floating_point()]
        self.weights = [self.tensors[name] for name in self.names]
        self.averages = [t.detach().clone() for t in self.weights]
        # float32 counts to 16.7 million, and w is constant long before that.
        self.count, self.weight = (torch.zeros((), device=self.weights[0].device) for _ in range(2))
        self.saved = {f"{AVERAGES}{name}": t for name, t in zip(self.names, self.averages, strict=True)}
        self.saved[f"{AVERAGES}{of.update}"] = self.count

    def update(self, next_weight, terms: Mapping[str, Tensor]) -> None:
        gate = None if self._gate is None else terms[self._gate]
        next_weight(self.count, self.weight, gate, self._decay)
        # A list of tensors moves by a number on the device: `_foreach_lerp_` takes one from the host, which a captured
        # step could not change. With a weight decay of 1 and the sign of the gradient reversed, SGD is that,
        # average - w (average - weights), in one launch for the VAE.
        torch._fused_sgd_(
            self.averages,
            [t.detach() for t in self.weights],
            [],
            lr=self.weight,
            weight_decay=1.0,
            maximize=True,
            momentum=0.0,
            dampening=0.0,
            nesterov=False,
            is_first_step=False,
        )


def _next_weight(count: Tensor, weight: Tensor, gate: Tensor | None, decay: float) -> None:
    # An update that was skipped has the weight 0, at which the average stays as it is to the bit.
    moves = 1 if gate is None else (gate != 0).to(count.dtype)
    weight.copy_((9 / (10 + count)).clamp_min(1 - decay) * moves)
    count.add_(moves)
