"""The problems: the recipes' calls, one direction at a time, gathered by the entry that they look up."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from unittest import mock

import torch
from torch import Tensor

from bench.kernels.cases import ConvCase, FeatureCase, UpdateCase
from fastvae.kernels import (
    adam_clip_,
    critic_update_triton,
    dispatch,
    feature_loss_triton,
    replicate_conv_launch,
    rmsprop_clip_,
    tiles,
)
from fastvae.kernels.cost import Cost
from fastvae.kernels.critic_update import cost as update_cost
from fastvae.kernels.feature_loss import cost as loss_cost
from fastvae.kernels.replicate_conv import cost as conv_cost
from tools.tune import candidates

Entries = dict[str, tiles.Tile | None]  # by key, as in tiles.json
Operands = list[Tensor | list[Tensor] | None]

DIRECTIONS = ("forward", "data_gradient", "weight_gradient")
OPS = (*(f"replicate_conv2d.{d}" for d in DIRECTIONS), "feature_loss", "adam_clip_", "rmsprop_clip_")


class Trial(dict):
    """Entries on trial, which the ops look up in place of the measured ones; knows what was asked for last.

    Attributes:
        asked: the key and its default tile.
    """

    asked: tuple[str, tiles.Tile]

    def get(self, key, default=None):
        self.asked = (key, default)
        return super().get(key, default)

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Within the block the ops see these entries alone."""
        with mock.patch.object(tiles, "_measured", lambda: self):
            yield


def _looked_up(choose_tile: Callable, *arguments) -> tuple[str, tiles.Tile]:
    """The key that an op looks its tile up by, and its default: as the op itself makes them."""
    trial = Trial()
    with trial.in_use():
        choose_tile(*arguments)
    return trial.asked


@dataclass(frozen=True)
class ConvCall:
    """One direction of one convolution."""

    case: ConvCase
    direction: str
    dtype: torch.dtype

    # Sums may cancel, and rounding errors are relative to their terms.
    sums_products = True

    @property
    def op(self) -> str:
        return f"replicate_conv2d.{self.direction}"

    def defaults(self) -> Entries:
        """The keys that decide over this call, its own first, with their default tiles."""
        x, weight, _ = self.case.operands(self.dtype, "meta")
        directions = ("data_gradient", "ring") if self.direction == "data_gradient" else (self.direction,)
        choose_tile = replicate_conv_launch.choose_tile
        return dict(_looked_up(choose_tile, d, x.shape, weight, self.case.upsample, x) for d in directions)

    def cost(self) -> Cost:
        case = self.case
        shape = (case.batch, case.in_channels, case.out_channels, case.size, case.size)
        return conv_cost(*shape, upsample=case.upsample, dtype=self.dtype, direction=self.direction)

    def operands(self, device: str) -> Operands:
        x, weight, bias = (None if t is None else t.detach() for t in self.case.operands(self.dtype, device))
        side = self.case.upsample * self.case.size
        grad = torch.randn(len(x), len(weight), side, side, device=device, dtype=self.dtype)
        return [x, weight, bias, grad.contiguous(memory_format=torch.channels_last)]

    def run(self, x: Tensor, weight: Tensor, bias: Tensor | None, grad: Tensor) -> list[Tensor]:
        if self.direction == "forward":
            return [torch.ops.fastvae.replicate_conv2d(x, weight, bias, self.case.upsample, None, dispatch.SOURCES)]
        of_x = self.direction == "data_gradient"
        wanted = [of_x, not of_x, not of_x and bias is not None]
        gradients = torch.ops.fastvae.replicate_conv2d_backward(grad, None, x, weight, self.case.upsample, None, wanted)
        return [gradient for gradient, wants in zip(gradients, wanted, strict=True) if wants]

    def first_entries(self, defaults: Entries) -> list[Entries]:
        """What to try first: all shapes of tiles, with the default's pipeline."""
        key, *_ = defaults
        pixels, channels, columns, phases = self._sizes()
        size, default = self.dtype.itemsize, defaults[key]
        if self.direction == "forward":
            return [{key: t} for t in candidates.over_pixels(default, pixels, columns, channels, size, phases=phases)]
        if self.direction == "weight_gradient":
            return [{key: t} for t in candidates.over_weights(default, columns, channels, pixels, size)]
        _, ring = defaults
        unsplit = {**default, "SPLIT_RING": 0}
        made = [{key: unsplit, ring: t} for t in candidates.ring(defaults[ring], pixels, channels, columns, size)]
        if interior := self.case.batch * max(self.case.size - 2, 0) ** 2:
            split = candidates.over_pixels({**default, "SPLIT_RING": 1}, interior, channels, columns, size)
            made += [{key: t, ring: defaults[ring]} for t in split]
        return made

    def next_entries(self, ranked: list[Entries], capability: tuple[int, int]) -> list[Entries]:
        """What to try after those, fastest first: other pipelines of the best, and the ring's tiles beside a split."""
        size, made = self.dtype.itemsize, []
        for entries in ranked[:3]:
            key, *rings = entries
            # Where all pixels are done as the ring's, its tile is the one in use.
            varied = rings[0] if rings and not entries[key]["SPLIT_RING"] else key
            made += [{**entries, varied: t} for t in candidates.pipelines(entries[varied], size, capability)]
        if split := next(filter(_splits, ranked), None):
            _, ring = split
            pixels, channels, columns, _ = self._sizes()
            of_ring = pixels - self.case.batch * (self.case.size - 2) ** 2
            made += [{**split, ring: t} for t in candidates.ring(split[ring], of_ring, channels, columns, size)]
        return made

    def _sizes(self) -> tuple[int, int, int, int]:
        """Pixels of x, its channels, columns of one product, and phases."""
        case = self.case
        weight = torch.empty(case.out_channels, case.in_channels, 3, 3, device="meta")
        form = replicate_conv_launch.Form.of(weight, case.upsample)
        return case.batch * case.size**2, case.in_channels, form.columns, form.phases


def _splits(entries: Entries) -> bool:
    return any(tile.get("SPLIT_RING") for tile in entries.values())


class _Elementwise:
    """What is common to calls whose kernels do the same to every element."""

    sums_products = False

    def first_entries(self, defaults: Entries) -> list[Entries]:
        (key, default), count = next(iter(defaults.items())), self.count()
        return [{key: t} for t in candidates.elementwise(default, count, self.dtype.itemsize)]

    def next_entries(self, ranked: list[Entries], capability: tuple[int, int]) -> list[Entries]:
        return []


@dataclass(frozen=True)
class FeatureCall(_Elementwise):
    """The feature loss of one recipe, with what its backward pass needs."""

    case: FeatureCase
    dtype: torch.dtype

    op = "feature_loss"

    def count(self) -> int:
        return sum(self.case.batch * prod(shape) for shape in self.case.shapes)

    def defaults(self) -> Entries:
        features, _ = self.case.operands(self.dtype, "meta")
        return dict([_looked_up(feature_loss_triton.choose_tile, features)])

    def cost(self) -> Cost:
        return loss_cost([(self.case.batch, *shape) for shape in self.case.shapes], self.dtype, True)

    def operands(self, device: str) -> Operands:
        features, targets = self.case.operands(self.dtype, device)
        return [[f.detach() for f in features], targets]

    def run(self, features: list[Tensor], targets: list[Tensor]) -> list[Tensor]:
        loss, differences = torch.ops.fastvae.feature_loss(
            features, targets, self.case.weights, True, False, dispatch.SOURCES
        )
        return [loss, *differences]


@dataclass(frozen=True)
class UpdateCall(_Elementwise):
    """One optimiser's step on one recipe's parameters, float32 whatever the precision."""

    case: UpdateCase

    dtype = torch.float32

    @property
    def op(self) -> str:
        return f"{self.case.optimizer}_clip_"

    def count(self) -> int:
        return sum(prod(shape) for shape in self.case.shapes)

    def defaults(self) -> Entries:
        return dict([_looked_up(critic_update_triton.choose_tile, self.op, self.case.parameters("meta"))])

    def cost(self) -> Cost:
        return update_cost(self.count(), optimizer=self.case.optimizer)

    def operands(self, device: str) -> Operands:
        grads = [p.grad for p in self.case.parameters(device)]
        # Averages as they are after a while, and signs with which no sum cancels: a tensor of one element that did
        # would be nothing but rounding errors.
        parameters = [-0.01 * torch.rand_like(g) * g.sign() for g in grads]
        squares, averages = [torch.rand_like(g) for g in grads], [torch.rand_like(g) * g for g in grads]
        steps = [torch.full((), 10.0, device=device) for _ in grads]
        return [parameters, grads, squares, averages, steps]

    def run(
        self,
        parameters: list[Tensor],
        grads: list[Tensor],
        squares: list[Tensor],
        averages: list[Tensor],
        steps: list[Tensor],
    ) -> list[Tensor]:
        if self.case.optimizer == "adam":
            options = {"lr": 5e-4, "betas": (0.5, 0.999), "eps": 1e-8, "clip": self.case.clip}
            adam_clip_(parameters, grads, averages, squares, steps, **options)
            return [*parameters, *averages, *squares]
        rmsprop_clip_(parameters, grads, squares, steps, lr=5e-5, alpha=0.99, eps=1e-8, clip=self.case.clip)
        return [*parameters, *squares]


Call = ConvCall | FeatureCall | UpdateCall


@dataclass(frozen=True)
class Problem:
    """The calls that share an entry, whose tile is chosen by the time they take together.

    Attributes:
        calls: with one key.
        defaults: that key and the ring's beside a data gradient's, with their default tiles.
    """

    calls: tuple[Call, ...]
    defaults: Entries

    @property
    def key(self) -> str:
        """Of the entry."""
        return next(iter(self.defaults))

    @property
    def name(self) -> str:
        """Human-readable: the entry and the cases that it is for."""
        return f"{self.key} ({'; '.join(call.case.name for call in self.calls)})"

    @property
    def expense(self) -> float:
        """Bytes moved, and flops as the bytes that a GPU of today moves meanwhile."""
        return sum(call.cost().bytes + call.cost().flops / 200 for call in self.calls)


def gather(
    convs: tuple[ConvCase, ...],
    features: tuple[FeatureCase, ...],
    updates: tuple[UpdateCase, ...],
    dtypes: list[torch.dtype],
    ops: tuple[str, ...],
    capability: tuple[int, int],
) -> list[Problem]:
    """The problems of these cases and ops that Triton can run on a GPU of this capability, most expensive first."""
    calls: list[Call] = [UpdateCall(case) for case in updates]
    for dtype in dtypes:
        calls += [ConvCall(case, direction, dtype) for case in convs for direction in DIRECTIONS]
        calls += [FeatureCall(case, dtype) for case in features]
    by_key: dict[str, list[Call]] = {}
    for call in calls:
        if call.op in ops and dispatch.supports(call.op.partition(".")[0], call.dtype, capability):
            by_key.setdefault(next(iter(call.defaults())), []).append(call)
    problems = [Problem(tuple(group), group[0].defaults()) for group in by_key.values()]
    return sorted(problems, key=lambda problem: -problem.expense)
