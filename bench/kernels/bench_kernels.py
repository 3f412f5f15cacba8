"""Every op against its peers: `python -m bench kernels`.

Eager and compiled, forward and backward, at the recipes' shapes; every contender's results are checked against
float64 before it is timed. Prints a table and writes a record (JSON) and a roofline (PNG) beside it. Without a GPU it
runs what CPUs run, on smaller batches, and says what it left out.
"""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest
import torch

from bench.kernels import batch_norm, critic_update, feature_loss, replicate_conv, roofline
from bench.kernels.cases import FeatureCase, conv_cases, feature_cases, norm_cases, update_cases
from bench.kernels.comparison import Measurement, fastest_of_ours, fastest_peer, rows
from bench.measuring import ceilings, replay
from bench.measuring.row import Row
from bench.reporting import record, suite
from fastvae.progress_bar import tqdm
from fastvae.recipes import RECIPES

OPS = ("replicate_conv2d", "feature_loss", "batch_norm", "critic_update")
# An eighth of the recipes', so that a run takes minutes.
CPU_BATCH = 8
WITH_BACKWARD = ("forward and backward", "loss and gradients", "one step")
TINY = FeatureCase(2, ((3, 4, 4), (5, 2, 2)))


def main(arguments: list[str]) -> int:
    """The command; returns its exit status: 0, or 1 if an op of ours computed something wrong."""
    parser = suite.parser("kernels", __doc__, tiny="one small case, nothing compiled; the figures mean nothing")
    parser.add_argument("--op", nargs="+", choices=OPS, default=OPS)
    parser.add_argument("--recipe", nargs="+", choices=tuple(RECIPES), default=["celeba64"])
    parser.add_argument("--dtype", nargs="+", choices=("bfloat16", "float16", "float32"))
    parser.add_argument("--rounds", type=int, default=None, help="calls of each contender; 50 on a GPU, 15 on a CPU")
    options = suite.parse(parser, arguments, rounds=1)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtypes = [getattr(torch, d) for d in options.dtype or (["bfloat16"] if device == "cuda" else ["float32"])]
    rounds = 2 if options.tiny else options.rounds or (50 if device == "cuda" else 15)
    report = suite.Report(f"every op against its peers on {record.machine()}, interleaved, medians of {rounds}")
    if device == "cpu":
        report.note(f"no GPU: Triton's kernels were not timed, and batches are of {CPU_BATCH} images")
    if options.tiny:
        torch.compiler.set_stance("force_eager")

    def measure_all() -> None:
        # Parameters are float32 in every precision.
        report.ceilings = measured = ceilings.measure(
            device, list(dict.fromkeys([*dtypes, torch.float32])), rounds=1 if options.tiny else 10
        )
        print(f"copy {measured.copy_gb_per_s:.4g} GB/s; product {measured.product_tflop_per_s} TFLOP/s")
        if options.tiny:
            work = tiny_measurements(device)
        else:
            work = list(measurements(options.op, tuple(options.recipe), dtypes, device))
        for each in tqdm(work, desc="kernels", file=sys.stderr, disable=None):
            failed = len(report.failures)
            try:
                results = rows(each, measured, rounds=rounds, device=device, report=report)
            except Exception as error:  # one op must not stop the others
                report.fail(f"FAILED: {each.name}: {type(error).__name__}: {error}")
                results = []
            finally:
                for failure in report.failures[failed:]:
                    tqdm.write(failure, file=sys.stdout)
                torch.compiler.reset()  # a compiled peer of another shape would be counted as a recompilation
            tqdm.write(table(results), file=sys.stdout)
            report.rows += results
            report.keep()

    return suite.run(
        report,
        options,
        measure_all,
        lambda path: roofline.draw(report.rows, report.ceilings, record.machine(), path),
    )


def tiny_measurements(device: str) -> list[Measurement]:
    """Of one op, to try the suite out."""
    return list(feature_loss.measurements((TINY,), torch.float32, device))


def measurements(
    ops: tuple[str, ...], recipes: tuple[str, ...], dtypes: list[torch.dtype], device: str
) -> Iterator[Measurement]:
    """Of these ops at the shapes of these recipes."""

    def sized(cases):
        return cases if device == "cuda" else tuple(replace(case, batch=CPU_BATCH) for case in cases)

    for dtype in dtypes:
        if "replicate_conv2d" in ops:
            yield from replicate_conv.measurements(sized(conv_cases(recipes)), dtype, device)
        if "feature_loss" in ops:
            yield from feature_loss.measurements(sized(feature_cases(recipes)), dtype, device)
        if "batch_norm" in ops:
            yield from batch_norm.measurements(sized(norm_cases(recipes)), dtype, device)
    if "critic_update" in ops:
        yield from critic_update.measurements(update_cases(recipes), device)


def table(results: Sequence[Row]) -> str:
    """One measurement, human-readable: a heading and a line for each contender, speeds against the best peer's."""
    if not results:
        return ""
    first, peer = results[0], fastest_peer(results)
    lines = ["{op}: {case}, {dtype}, {work}".format(**first.job)]
    for row in results:
        low, high = row.quartiles
        reached = row.details
        speed = f"{peer.median / row.median:6.2f} x best peer" if peer else ""
        lines.append(
            f"  {row.contender:<26} {row.median:10.1f} us ({low:.1f} to {high:.1f})  {reached['gb_per_s']:8.1f} GB/s "
            f"{reached['tflop_per_s']:8.3f} TFLOP/s  {100 * reached['of_floor']:5.1f} % of floor  {speed}"
        )
    return "\n".join(lines)


@pytest.fixture(scope="module", params=OPS)
def op_rows(request, tiny) -> list[list[Row]]:
    """The rows of each case of an op at the celeba64 recipe's shapes, checked and taken in turns."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if tiny and request.param != "feature_loss":
        pytest.skip("tiny measures one op")
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    work = tiny_measurements(device) if tiny else measurements((request.param,), ("celeba64",), [dtype], device)
    measured = ceilings.measure(device, list(dict.fromkeys((dtype, torch.float32))))
    results, report = [], suite.Report("ops")
    with torch.compiler.set_stance("force_eager" if tiny else "default"):
        for each in work:
            if each.work in WITH_BACKWARD:
                results.append(rows(each, measured, rounds=2 if tiny else 15, device=device, report=report))
                torch.compiler.reset()  # a compiled peer of another shape would be counted as a recompilation
    assert not report.failures
    return results


@pytest.mark.parametrize("fastest", [fastest_peer, fastest_of_ours], ids=["best peer", "fastvae"])
def test_op(benchmark, op_rows, fastest):
    """A sample is a call of each case; "best peer" is in every case the fastest that is not ours, eager or compiled."""
    benchmark.group = op_rows[0][0].job["op"]
    chosen = [fastest(case) for case in op_rows]
    replay.hand_over(benchmark, (sum(call) for call in zip(*(row.seconds for row in chosen), strict=True)))
