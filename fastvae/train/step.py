"""One training step. For the VAE-WGAN this is Algorithm 1: one forward pass, one backward pass, three updates."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from fastvae.distributed.ranks import ALONE, Ranks
from fastvae.kernels.dispatch import map_format
from fastvae.machine import unlimited_compilations
from fastvae.objectives import Objective, Pass, Update
from fastvae.pictures import flipped, to_images
from fastvae.train.averaged_gradients import AveragedGradients
from fastvae.train.rounded_weights import RoundedWeights
from fastvae.train.weight_average import WeightAverage


class Step:
    """Runs an objective's passes on a batch and applies its updates.

    Args:
        objective: on `device`, in training mode.
        updates: the objective's optimisers, by name.
        device: of the objective and the batches.
        bf16: run convolutions in bfloat16 with float32 master weights (autocast); losses stay in float32.
        average: of the weights, updated after the passes; None for none.
        compile_passes: compile each pass with torch.compile(fullgraph=True) at its first use.
        ranks: the processes that share a step; each runs it on a batch of its own, and their gradients are averaged.
    """

    def __init__(
        self,
        objective: Objective,
        updates: dict[str, Update],
        *,
        device: torch.device,
        bf16: bool = False,
        average: WeightAverage | None = None,
        compile_passes: bool = False,
        ranks: Ranks = ALONE,
    ):
        self.objective, self.updates, self.average = objective, updates, average
        self.device, self.bf16, self.compile_passes = device, bf16, compile_passes
        self._averaged = None if ranks.alone else AveragedGradients(updates, ranks)
        self._losses = {}

    def __call__(self, pixels: Tensor, noise: Tensor, step: int, flips: Tensor | None = None) -> dict[str, Tensor]:
        """Runs one step on a batch.

        Args:
            pixels: uint8 [B, H, W, 3], RGB.
            noise: float32 [B, noise_size], standard normal.
            step: the step's number, from 0.
            flips: [B], not zero for images to flip left to right; None for none.

        Returns:
            The loss terms of the step, detached scalars on the device; means over all ranks.
        """
        terms = {}
        passes = self.objective.passes(step)
        for pass_ in passes:
            with self.precision(), unlimited_compilations() if self.compile_passes else nullcontext():
                total, reported = self._loss(pass_)(pixels, noise, flips)
            total.backward()
            if self._averaged is not None:
                reported = self._averaged.average(pass_, reported)
                reported |= pass_.decide(reported)
            for name in pass_.updates:
                self.updates[name].apply(reported)
            terms |= reported
        if self.average is not None:
            self.average.update({name for pass_ in passes for name in pass_.updates}, terms)
        return terms

    def images(self, pixels: Tensor, flips: Tensor | None = None) -> Tensor:
        """What the objective sees of a batch.

        Args:
            pixels: uint8 [B, H, W, 3], RGB.
            flips: as for a step.

        Returns:
            float32 [B, 3, H, W] in [-1, 1] on the step's device, in the layout of its networks.
        """
        flips = None if flips is None else flips.to(self.device)
        return _images(pixels.to(self.device), flips, map_format(self.device))

    def precision(self) -> AbstractContextManager:
        """The autocast context for every forward pass of this run."""
        return torch.autocast(self.device.type, torch.bfloat16) if self.bf16 else nullcontext()

    def _loss(self, pass_: Pass):
        if pass_.name not in self._losses:
            layout = map_format(self.device)

            def loss(pixels: Tensor, noise: Tensor, flips: Tensor | None = None):
                total, terms = pass_.loss(_images(pixels, flips, layout), noise)
                # Of several ranks, all decide by the means of their terms.
                return total, terms | pass_.decide(terms) if self._averaged is None else terms

            if self.bf16:
                loss = RoundedWeights(self._updated_by(pass_), loss).rounded
            if self.compile_passes:
                loss = torch.compile(loss, fullgraph=True, dynamic=False)
            self._losses[pass_.name] = loss
        return self._losses[pass_.name]

    def _updated_by(self, pass_: Pass) -> list[nn.Module]:
        """The networks whose parameters the pass updates."""
        groups = (group for name in pass_.updates for group in self.updates[name].optimizer.param_groups)
        updated = {id(p) for group in groups for p in group["params"]}
        return [n for n in self.objective.networks.values() if any(id(p) in updated for p in n.parameters())]


def _images(pixels: Tensor, flips: Tensor | None, layout: torch.memory_format) -> Tensor:
    pixels = pixels if flips is None else flipped(pixels, flips)
    return to_images(pixels).contiguous(memory_format=layout)
