"""One comparison: contenders that compute the same, the proof that they do, and the least that it costs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bench.measuring.ceilings import Ceilings
from bench.measuring.clock import Contenders, interleaved, quartiles
from bench.measuring.closeness import assert_close, relative_error

Results = Tensor | Sequence[Tensor]

# The name that every op's own contender has, eager and compiled.
OURS, OURS_COMPILED = "fastvae", "fastvae, compiled"


@dataclass(frozen=True)
class Measurement:
    """What is timed together.

    Attributes:
        op: name of the op.
        case: which call of it, in words.
        work: "forward", "forward and backward", ...
        dtype: of the operands.
        contenders: functions by name that return a tensor or a sequence of tensors, ours among them.
        expected: returns what plain eager torch computes in this dtype, and the same in float64.
        flops, bytes: the least that the work takes, by the op's `cost`.
    """

    op: str
    case: str
    work: str
    dtype: torch.dtype
    contenders: Contenders
    expected: Callable[[], tuple[Results, Results]]
    flops: int
    bytes: int

    @property
    def name(self) -> str:
        """For messages."""
        return f"{self.op}, {self.case}, {self.work}"


@dataclass(frozen=True)
class Row:
    """One contender's result. `of_floor` is the floor's share of the time, 1 at the machine's ceiling."""

    op: str
    case: str
    work: str
    dtype: str
    contender: str
    median_us: float
    quartiles_us: tuple[float, float]
    gb_per_s: float
    tflop_per_s: float
    of_floor: float
    flops_per_byte: float
    samples_us: list[float]

    @property
    def is_ours(self) -> bool:
        """Whether it is fastvae's op, eager or compiled, as dispatch would run it."""
        return self.contender in (OURS, OURS_COMPILED)


def rows(
    measurement: Measurement, ceilings: Ceilings, *, rounds: int, device: str, note: Callable[[str], None]
) -> list[Row]:
    """Checks, then times; a row for each contender that runs on this machine and computes the right thing.

    Args:
        measurement: what to time.
        ceilings: of this machine.
        rounds: calls of each contender.
        device: "cuda" or "cpu".
        note: told, in words, of each contender that is left out, and of each that is less accurate than plain torch.

    Raises:
        AssertionError: ours is less accurate.
        RuntimeError: ours cannot be timed.
    """

    def say(words: str) -> None:
        note(f"{measurement.name}: {words}")

    contenders = _right_ones(measurement, say)
    samples = interleaved(contenders, rounds=rounds, device=device, note=say)
    if missing := [name for name in contenders if name.startswith(OURS) and name not in samples]:
        raise RuntimeError(f"{measurement.name}: {', '.join(missing)} could not be captured in a CUDA graph")
    floor_s = ceilings.floor_s(measurement.flops, measurement.bytes, measurement.dtype)
    found = []
    for name, seconds in samples.items():
        first, median, third = quartiles(seconds)
        found.append(
            Row(
                op=measurement.op,
                case=measurement.case,
                work=measurement.work,
                dtype=str(measurement.dtype).removeprefix("torch."),
                contender=name,
                median_us=round(1e6 * median, 3),
                quartiles_us=(round(1e6 * first, 3), round(1e6 * third, 3)),
                gb_per_s=round(measurement.bytes / median / 1e9, 3),
                tflop_per_s=round(measurement.flops / median / 1e12, 5),
                of_floor=round(floor_s / median, 4),
                flops_per_byte=round(measurement.flops / measurement.bytes, 3),
                samples_us=[round(1e6 * s, 2) for s in seconds],
            )
        )
    return found


def _right_ones(measurement: Measurement, note: Callable[[str], None]) -> Contenders:
    """The gate before any number: ours must be as near to float64 as plain torch, peers must compute the same thing."""
    plain, exact = (_as_list(results) for results in measurement.expected())
    right = {}
    for name, call in measurement.contenders.items():
        try:
            found = _as_list(call())
        except Exception as error:  # a peer that cannot run here must not cost the others their numbers
            if name.startswith(OURS):
                raise
            note(f"left out: {name}: {type(error).__name__}: {str(error).strip().splitlines()[:1]}")
            continue
        right[name] = call
        for index, (ours, theirs, true) in enumerate(zip(found, plain, exact, strict=True)):
            try:
                assert_close(ours.detach().to(theirs.dtype), theirs.detach(), true.detach())
            except AssertionError as error:
                if name.startswith(OURS):
                    raise AssertionError(f"{measurement.name}: {name}, result {index}: {error}") from error
                # Half of the digits: beyond that it is another function, below it a matter of rounding.
                if not relative_error(ours, true) <= torch.finfo(theirs.dtype).eps ** 0.5:
                    note(f"left out: {name} is wrong, result {index}: {error}")
                    del right[name]
                else:
                    note(f"less accurate than plain torch, timed all the same: {name}, result {index}: {error}")
                break
    return right


def _as_list(results: Results) -> list[Tensor]:
    return [results] if isinstance(results, Tensor) else list(results)
