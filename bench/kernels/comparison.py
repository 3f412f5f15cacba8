"""One comparison: contenders, the check that they compute the same, their times, and the least possible time."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from bench.measuring.ceilings import Ceilings
from bench.measuring.clock import Contenders, interleaved, quartiles
from bench.measuring.closeness import assert_close, relative_error
from bench.measuring.ours import OURS, is_ours
from bench.measuring.row import Row
from bench.reporting.suite import Report

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
        stated_error: the relative error that the op's documentation allows it, beyond that of plain torch.
    """

    op: str
    case: str
    work: str
    dtype: torch.dtype
    contenders: Contenders
    expected: Callable[[], tuple[Results, Results]]
    flops: int
    bytes: int
    stated_error: float = 0.0

    @property
    def name(self) -> str:
        """For messages."""
        return f"{self.op}, {self.case}, {self.work}"


def rows(measurement: Measurement, ceilings: Ceilings, *, rounds: int, device: str, report: Report) -> list[Row]:
    """Checks, then times; a row for each contender that runs on this machine and computes the right thing.

    Args:
        measurement: what to time.
        ceilings: of this machine.
        rounds: calls of each contender.
        device: "cuda" or "cpu".
        report: gets a failure for each of ours that does not run or is less accurate than plain torch, and a note for
            each peer that is left out or less accurate.

    Returns:
        Rows with the job {op, case, work, dtype}. Their `of_floor` is the least time at the machine's ceilings as a
        share of the median: 1 is the best possible for what computes by the definition; Winograd's convolutions, ours
        and oneDNN's, have fewer products.
    """
    contenders = _validated(measurement, report)
    drop = partial(report.left_out, job=measurement.name)
    samples = interleaved(contenders, rounds=rounds, device=device, drop=drop)
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


def _validated(measurement: Measurement, report: Report) -> Contenders:
    """The gate before any number: ours must be as near to float64 as plain torch, peers must compute the same thing."""
    plain, exact = (_as_list(results) for results in measurement.expected())
    validated = {}
    for name, call in measurement.contenders.items():
        try:
            results = _as_list(call())
        except Exception as error:  # one that cannot run here must not stop the others
            report.left_out(name, error, measurement.name)
            continue
        validated[name] = call
        for index, (result, theirs, true) in enumerate(zip(results, plain, exact, strict=True)):
            try:
                assert_close(
                    result.detach().to(theirs.dtype), theirs.detach(), true.detach(), stated=measurement.stated_error
                )
            except AssertionError as error:
                # Half of the digits: beyond that it is another function, below it a matter of rounding.
                if is_ours(name) or not relative_error(result, true) <= torch.finfo(theirs.dtype).eps ** 0.5:
                    report.wrong(name, f"result {index}: {error}", measurement.name)
                    del validated[name]
                else:
                    how = f"less accurate than plain torch, timed all the same: {name}, result {index}: {error}"
                    report.note(f"{measurement.name}: {how}")
                break
    return validated


def _as_list(results: Results) -> list[Tensor]:
    return [results] if isinstance(results, Tensor) else list(results)
