"""One comparison: contenders, the check that they compute the same, their times, and the least possible time."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bench.measuring.ceilings import Ceilings
from bench.measuring.clock import Contenders, interleaved, quartiles
from bench.measuring.closeness import assert_close, relative_error
from bench.measuring.ours import OURS
from bench.measuring.row import Row

Results = Tensor | Sequence[Tensor]

# What an op's own contenders are called: as a caller gets it, the same compiled, and forced to its form in ATen.
OURS_COMPILED, OURS_IN_ATEN = f"{OURS}, compiled", f"{OURS}, in ATen"


@dataclass(frozen=True)
class Measurement:
    """What is timed together.

    Attributes:
        op: name of the op.
        case: which call of it, e.g. "64->32 16x16 up2 b64".
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


def rows(
    measurement: Measurement, ceilings: Ceilings, *, rounds: int, device: str, note: Callable[[str], None]
) -> list[Row]:
    """Checks, then times; a row for each contender that runs on this machine and computes the right thing.

    Args:
        measurement: what to time.
        ceilings: of this machine.
        rounds: calls of each contender.
        device: "cuda" or "cpu".
        note: called with a message for each contender that is left out or less accurate than plain torch.

    Returns:
        Rows with the job {op, case, work, dtype}. Their `of_floor` is the least time at the machine's ceilings as a
        share of the median: 1 is the best possible.

    Raises:
        AssertionError: ours is less accurate.
        RuntimeError: ours cannot be timed.
    """

    def note_of_this(message: str) -> None:
        note(f"{measurement.name}: {message}")

    contenders = _validated(measurement, note_of_this)
    samples = interleaved(contenders, rounds=rounds, device=device, note=note_of_this)
    if missing := [name for name in contenders if name.startswith(OURS) and name not in samples]:
        raise RuntimeError(f"{measurement.name}: {', '.join(missing)} could not be captured in a CUDA graph")
    floor_s = ceilings.floor_s(measurement.flops, measurement.bytes, measurement.dtype)
    job = {
        "op": measurement.op,
        "case": measurement.case,
        "work": measurement.work,
        "dtype": str(measurement.dtype).removeprefix("torch."),
    }
    return [_row(name, seconds, measurement, job, floor_s) for name, seconds in samples.items()]


def _row(
    contender: str, seconds: Sequence[float], measurement: Measurement, job: dict[str, str], floor_s: float
) -> Row:
    median_s = quartiles(seconds)[1]
    details = {
        "gb_per_s": round(measurement.bytes / median_s / 1e9, 3),
        "tflop_per_s": round(measurement.flops / median_s / 1e12, 5),
        "of_floor": round(floor_s / median_s, 4),
        "flops_per_byte": round(measurement.flops / measurement.bytes, 3),
    }
    return Row.from_seconds(contender, seconds, "us", job=job, details=details)


def fastest_of_ours(rows: Sequence[Row]) -> Row | None:
    """Eager or compiled, as a caller gets it: not the form in ATen, which is timed for comparison. None if missing."""
    ours = (row for row in rows if row.contender in (OURS, OURS_COMPILED))
    return min(ours, key=lambda row: row.median, default=None)


def fastest_peer(rows: Sequence[Row]) -> Row | None:
    """The fastest that is not fastvae's; None without peers."""
    return min((row for row in rows if not row.is_ours), key=lambda row: row.median, default=None)


def _validated(measurement: Measurement, note: Callable[[str], None]) -> Contenders:
    """The gate before any number: ours must be as near to float64 as plain torch, peers must compute the same thing."""
    plain, exact = (_as_list(results) for results in measurement.expected())
    validated = {}
    for name, call in measurement.contenders.items():
        try:
            results = _as_list(call())
        except Exception as error:  # a peer that cannot run here must not stop the others
            if name.startswith(OURS):
                raise
            note(f"left out: {name}: {type(error).__name__}: {str(error).strip().splitlines()[:1]}")
            continue
        validated[name] = call
        for index, (result, theirs, true) in enumerate(zip(results, plain, exact, strict=True)):
            try:
                assert_close(result.detach().to(theirs.dtype), theirs.detach(), true.detach())
            except AssertionError as error:
                if name.startswith(OURS):
                    raise AssertionError(f"{measurement.name}: {name}, result {index}: {error}") from error
                # Half of the digits: beyond that it is another function, below it a matter of rounding.
                if not relative_error(result, true) <= torch.finfo(theirs.dtype).eps ** 0.5:
                    note(f"left out: {name} is wrong, result {index}: {error}")
                    del validated[name]
                else:
                    note(f"less accurate than plain torch, timed all the same: {name}, result {index}: {error}")
                break
    return validated


def _as_list(results: Results) -> list[Tensor]:
    return [results] if isinstance(results, Tensor) else list(results)
