"""Time, arithmetic, traffic and floor of every part of a training step."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from bench.anatomy import flops, parts
from bench.measuring.ceilings import Ceilings
from bench.measuring.clock import interleaved, quartiles
from fastvae.config import Config
from fastvae.kernels.cost import Cost
from fastvae.kernels.critic_update import cost as update_cost
from fastvae.optim import ClippedAdam
from fastvae.train.step import Step

WAIT, GAPS, STEP = "loader wait", "gaps and the rest", "whole step"
_NOTHING = Cost(0, 0)


@dataclass(frozen=True)
class PartRow:
    """One part's time and floor, the larger of its arithmetic's and its traffic's time at the measured ceilings.

    Attributes:
        of_floor: the floor over the time, 1 at the ceiling; 0 for what has no floor.
        share: of the complete step's time.
    """

    part: str
    median_us: float
    quartiles_us: tuple[float, float]
    flops: int
    bytes: int
    floor_us: float
    of_floor: float
    share: float
    samples_us: list[float]

    @property
    def gap_us(self) -> float:
        """The time that the floor does not explain."""
        return self.median_us - self.floor_us


def measure(
    step: Step,
    config: Config,
    *,
    step_s: Sequence[float],
    wait_s: Sequence[float],
    ceilings: Ceilings,
    rounds: int,
    note: Callable[[str], None],
) -> list[PartRow]:
    """Times the parts in turns and sets them beside complete steps.

    On a GPU each part is a CUDA graph whose memory is not in the cache. A step that fuses across parts, or finds a map
    in the cache, takes less than their sum: then the difference, "gaps and the rest", is negative.

    Args:
        step: of the run; its objective is left as it is.
        config: resolved, of that run.
        step_s: seconds of complete steps, measured with the loader running.
        wait_s: seconds of those steps in which the host waited for the loader.
        ceilings: of this machine, of float32 products and of those in the run's precision.
        rounds: calls of each part.
        note: called with a message about each part that could not be timed.

    Returns:
        The parts in the order of the step, then the wait, the gaps and the complete step; its floor is the parts' sum.
    """
    copied, dtype = parts.own_copy(step.objective), torch.bfloat16 if step.bf16 else torch.float32
    calls = parts.passes(copied, config, precision=step.precision, rounded=step.bf16, compiled=step.compile_passes)
    calls |= parts.optimisers(copied, config.train.lr)
    samples = interleaved(calls, rounds=rounds, device=step.device.type, note=note)
    samples = parts.apart(samples, _pairwise)
    least = costs(config, dtype)
    median_step_s = quartiles(step_s)[1]
    row = partial(_row, median_step_s)
    rows = []
    for part, values in samples.items():
        # Parameters are float32 in every precision.
        own = torch.float32 if part.startswith("optimiser") else dtype
        rows.append(row(part, values, least[part], ceilings.floor_s(least[part].flops, least[part].bytes, own)))
    rows.append(row(WAIT, wait_s))
    explained_s = sum(r.median_us for r in rows) / 1e6
    total = Cost(sum(r.flops for r in rows), sum(r.bytes for r in rows))
    floor_s = sum(r.floor_us for r in rows) / 1e6
    return [*rows, row(GAPS, [s - explained_s for s in step_s]), row(STEP, step_s, total, floor_s)]


def without_parts(*, step_s: Sequence[float], wait_s: Sequence[float]) -> list[PartRow]:
    """The wait and the complete step, without a floor: what is known before the parts are timed; see `measure`."""
    row = partial(_row, quartiles(step_s)[1])
    return [row(WAIT, wait_s), row(STEP, step_s)]


def _row(
    median_step_s: float, part: str, values: Sequence[float], cost: Cost = _NOTHING, floor_s: float = 0.0
) -> PartRow:
    low, median, high = quartiles(values)
    return PartRow(
        part,
        1e6 * median,
        (1e6 * low, 1e6 * high),
        cost.flops,
        cost.bytes,
        1e6 * floor_s,
        floor_s / median if median > 0 else 0.0,
        median / median_step_s,
        [1e6 * s for s in values],
    )


def costs(config: Config, dtype: torch.dtype) -> dict[str, Cost]:
    """The least work of each part of a run's step.

    Args:
        config: of the run.
        dtype: in which activations and weights move; an optimiser's are float32.
    """
    with FakeTensorMode():
        objective = flops.shapes_of(config)
        calls = parts.passes(objective, config)
        counted = {name: flops.count(call, dtype) for name, call in calls.items()}
    least = parts.apart(counted, lambda more, less: Cost(more.flops - less.flops, more.bytes - less.bytes))
    pixels = config.train.batch_size * 3 * config.model.image_size**2
    # A factor and a shift for each; read as uint8, written as the first convolution reads it.
    least["input"] = Cost(flops=2 * pixels, bytes=pixels * (1 + dtype.itemsize))
    for name, update in objective.updates(config.train.lr).items():
        numel = sum(p.numel() for group in update.optimizer.param_groups for p in group["params"])
        kind = "adam" if isinstance(update.optimizer, ClippedAdam) else "rmsprop"
        least[f"optimiser, {name}"] = update_cost(numel, optimizer=kind)
    return least


def _pairwise(more: list[float], less: list[float]) -> list[float]:
    return [m - n for m, n in zip(more, less, strict=True)]


def largest_gaps(rows: Sequence[PartRow], count: int = 3) -> list[PartRow]:
    """The parts, wait and gaps among them, that take the most time beyond their floors."""
    return sorted((row for row in rows if row.part != STEP), key=lambda row: -row.gap_us)[:count]


def text(rows: Sequence[PartRow]) -> str:
    """The table, human-readable, with the three largest gaps below it."""
    titles = f"{'part':<26} {'us':>10} {'quartiles':>24} {'share':>7} {'GFLOP':>9} {'MB':>9}"
    lines = [f"{titles} {'floor us':>10} {'of floor':>9}"]
    for r in rows:
        low, high = r.quartiles_us
        floor = f"{r.floor_us:10.1f} {100 * r.of_floor:7.1f} %" if r.floor_us else f"{'-':>10} {'-':>9}"
        lines.append(
            f"{r.part:<26} {r.median_us:10.1f} {f'({low:.1f} to {high:.1f})':>24} {100 * r.share:5.1f} % "
            f"{r.flops / 1e9:9.3f} {r.bytes / 1e6:9.2f} {floor}"
        )
    gaps = "; ".join(f"{r.part} {r.gap_us:.1f} us" for r in largest_gaps(rows))
    return "\n".join([*lines, f"largest gaps between time and floor: {gaps}"])
