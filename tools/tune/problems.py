"""The problems: the recipes' calls, one direction at a time, gathered by the entry that they look up."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from unittest import mock

import torch
from torch import Tensor

from bench.kernels.cases import ConvCase, FeatureCase, NormCase, UpdateCase
from fastvae.kernels import (
    adam_clip_,
    batch_norm_triton,
    critic_update_triton,
    dispatch,
    feature_loss_triton,
    pack_weights,
    replicate_conv_launch,
    rmsprop_clip_,
    tiles,
)
from fastvae.kernels.batch_norm import cost as norm_cost
from fastvae.kernels.cost import Cost
from fastvae.kernels.critic_update import cost as update_cost
from fastvae.kernels.feature_loss import cost as loss_cost
from fastvae.kernels.packed_weight import Form
from fastvae.kernels.replicate_conv import cost as conv_cost
from tools.tune import candidates

Entries = dict[str, tiles.Tile | None]  # by key, as in tiles.json
Operands = list[Tensor | list[Tensor] | None]

DIRECTIONS = ("forward", "data_gradient", "weight_gradient")
OPS = (*(f"replicate_conv2d.{d}" for d in DIRECTIONS), "feature_loss", "batch_norm", "adam_clip_", "rmsprop_clip_")


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

    def entry(self) -> tuple[str, tiles.Tile]:
        """The key that decides over this call, with its default tile."""
        x, weight, _ = self.case.operands(self.dtype, "meta")
        return _looked_up(replicate_conv_launch.choose_tile, self.direction, x.shape, weight, self.case.upsample, x)

    def cost(self) -> Cost:
        case = self.case
        shape = (case.batch, case.in_channels, case.out_channels, case.size, case.size)
        return conv_cost(*shape, upsample=case.upsample, dtype=self.dtype, direction=self.direction)

    def operands(self, device: str) -> Operands:
        x, weight, bias = (None if t is None else t.detach() for t in self.case.operands(self.dtype, device))
        side = self.case.upsample * self.case.size
        grad = torch.randn(len(x), len(weight), side, side, device=device, dtype=self.dtype)
        (packed,) = pack_weights([weight], [self.case.upsample], self.dtype)
        return [x, weight, bias, grad.contiguous(memory_format=torch.channels_last), packed]

    def run(self, x: Tensor, weight: Tensor, bias: Tensor | None, grad: Tensor, packed: Tensor | None) -> list[Tensor]:
        up = self.case.upsample
        if self.direction == "forward":
            return [torch.ops.fastvae.replicate_conv2d(x, weight, bias, packed, None, up, None, dispatch.SOURCES)]
        of_x = self.direction == "data_gradient"
        wanted = [of_x, not of_x, not of_x and bias is not None]
        gradients = torch.ops.fastvae.replicate_conv2d_backward(grad, None, x, weight, packed, up, None, wanted)
        return [gradient for gradient, wants in zip(gradients, wanted, strict=True) if wants]

    def first_tiles(self, default: tiles.Tile) -> list[tiles.Tile]:
        """What to try first: all shapes of tiles, with the default's pipeline."""
        case, size = self.case, self.dtype.itemsize
        form = Form.of(torch.empty(case.out_channels, case.in_channels, 3, 3, device="meta"), case.upsample)
        pixels, channels, columns = case.batch * case.size**2, case.in_channels, form.columns
        if self.direction == "forward":
            return candidates.over_pixels(default, pixels, columns, channels, size, phases=form.phases)
        if self.direction == "data_gradient":
            return candidates.over_pixels(default, pixels, channels, columns, size)
        return candidates.over_weights(default, columns, channels, pixels, size)

    def next_tiles(self, ranked: list[tiles.Tile], capability: tuple[int, int]) -> list[tiles.Tile]:
        """What to try after those, fastest first: other pipelines of the best."""
        return [t for tile in ranked[:3] for t in candidates.pipelines(tile, self.dtype.itemsize, capability)]


class _Elementwise:
    """What is common to calls whose kernels do the same to every element."""

    sums_products = False

    def first_tiles(self, default: tiles.Tile) -> list[tiles.Tile]:
        return candidates.elementwise(default, self.count(), self.dtype.itemsize)

    def next_tiles(self, ranked: list[tiles.Tile], capability: tuple[int, int]) -> list[tiles.Tile]:
        return []


@dataclass(frozen=True)
class FeatureCall(_Elementwise):
    """The feature loss of one recipe; its backward pass is no kernel of its own."""

    case: FeatureCase
    dtype: torch.dtype

    op = "feature_loss"

    def count(self) -> int:
        return sum(self.case.batch * prod(shape) for shape in self.case.shapes)

    def entry(self) -> tuple[str, tiles.Tile]:
        features, _ = self.case.operands(self.dtype, "meta")
        return _looked_up(feature_loss_triton.choose_tile, features)

    def cost(self) -> Cost:
        return loss_cost([(self.case.batch, *shape) for shape in self.case.shapes], self.dtype, False)

    def operands(self, device: str) -> Operands:
        features, targets = self.case.operands(self.dtype, device)
        return [[f.detach() for f in features], targets]

    def run(self, features: list[Tensor], targets: list[Tensor]) -> list[Tensor]:
        return [torch.ops.fastvae.feature_loss(features, targets, self.case.weights, False, dispatch.SOURCES)]


@dataclass(frozen=True)
class NormCall:
    """The sums of one batch normalisation, of both directions: they have one tile."""

    case: NormCase
    dtype: torch.dtype

    op = "batch_norm"
    sums_products = True

    def entry(self) -> tuple[str, tiles.Tile]:
        x, *_ = self.case.operands(self.dtype, "meta")
        return _looked_up(batch_norm_triton.choose_tile, x, self.case.batches)

    def cost(self) -> Cost:
        case = self.case
        return norm_cost(case.batch * case.channels * case.size**2, case.channels, self.dtype, residual=case.residual)

    def operands(self, device: str) -> Operands:
        x, weight, bias, _ = (None if t is None else t.detach() for t in self.case.operands(self.dtype, device))
        # x' = x, so that a sum of |x'| is what the sum's rounding errors are relative to.
        statistics = torch.zeros(2, self.case.batches, self.case.channels, device=device)
        statistics[1] = 1
        running = [torch.zeros(self.case.channels, device=device) for _ in range(2)]
        return [x, torch.randn_like(x), statistics, weight, bias, *running]

    def run(self, x: Tensor, grad: Tensor, statistics: Tensor, weight: Tensor, bias: Tensor, *running) -> list[Tensor]:
        found = torch.ops.fastvae.batch_norm_statistics(x, *running, self.case.batches, 0.1, 1e-5)
        return [found, *torch.ops.fastvae.batch_norm_sums(grad, x, None, statistics, weight, bias, None)]

    def first_tiles(self, default: tiles.Tile) -> list[tiles.Tile]:
        rows = self.case.batch * self.case.size**2 // self.case.batches
        return candidates.of_sums(default, rows, self.case.channels)

    def next_tiles(self, ranked: list[tiles.Tile], capability: tuple[int, int]) -> list[tiles.Tile]:
        return []


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

    def entry(self) -> tuple[str, tiles.Tile]:
        return _looked_up(critic_update_triton.choose_tile, self.op, self.case.parameters("meta"))

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


Call = ConvCall | FeatureCall | NormCall | UpdateCall


@dataclass(frozen=True)
class Problem:
    """The calls that share an entry, whose tile is chosen by the time they take together.

    Attributes:
        calls: with one key.
        key: of the entry.
        default: its tile if nothing is measured.
    """

    calls: tuple[Call, ...]
    key: str
    default: tiles.Tile

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
    norms: tuple[NormCase, ...],
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
        calls += [NormCall(case, dtype) for case in norms]
    by_key: dict[str, list[Call]] = {}
    for call in calls:
        if call.op in ops and dispatch.supports(call.op.partition(".")[0], call.dtype, capability):
            by_key.setdefault(call.entry()[0], []).append(call)
    problems = [Problem(tuple(group), *group[0].entry()) for group in by_key.values()]
    return sorted(problems, key=lambda problem: -problem.expense)
