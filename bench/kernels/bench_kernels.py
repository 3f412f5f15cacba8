"""Every op against its peers: `python -m bench kernels`.

Eager and compiled, forward and backward, at the recipes' shapes; every contender's results are checked against
float64 before it is timed. Prints a table and writes a record (JSON) and a roofline (PNG) beside it. Without a GPU it
runs what CPUs run, on smaller batches, and says what it left out.
"""

import argparse
import sys
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from tqdm import tqdm

from bench.kernels import cases as kernel_cases
from bench.kernels import critic_update as bench_critic_update
from bench.kernels import feature_loss as bench_feature_loss
from bench.kernels import replicate_conv as bench_replicate_conv
from bench.kernels import roofline
from bench.kernels.comparison import Measurement, Row, rows
from bench.measuring import ceilings, replay
from bench.reporting import record
from fastvae.recipes import RECIPES

OPS = ("replicate_conv2d", "feature_loss", "critic_update")
# An eighth of the recipes', so that a run takes minutes.
CPU_BATCH = 8
WITH_BACKWARD = ("forward and backward", "loss and gradients", "one step")
TINY = kernel_cases.FeatureCase(2, ((3, 4, 4), (5, 2, 2)))


def main(arguments: list[str]) -> int:
    """The command; returns its exit status: 0, or 1 if an op of ours computed something wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m bench kernels", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--op", nargs="+", choices=OPS, default=OPS)
    parser.add_argument("--recipe", nargs="+", choices=tuple(RECIPES), default=["celeba64"])
    parser.add_argument("--dtype", nargs="+", choices=("bfloat16", "float16", "float32"))
    parser.add_argument("--rounds", type=int, default=None, help="calls of each contender; 50 on a GPU, 15 on a CPU")
    parser.add_argument(
        "--tiny", action="store_true", help="one small case, nothing compiled; its figures mean nothing"
    )
    parser.add_argument(
        "--out", type=record.place, help="the record, bench/records/DATE-MACHINE-kernels.json unless given"
    )
    options = parser.parse_args(arguments)

    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtypes = [getattr(torch, d) for d in options.dtype or (["bfloat16"] if device == "cuda" else ["float32"])]
    rounds = options.rounds or (50 if device == "cuda" else 15)
    out = options.out or record.path_for("kernels")
    record.check_writable(out)
    start = time.perf_counter()
    record.exit_on_sigterm()
    # Parameters are float32 in every precision.
    measured = ceilings.measure(device, list(dict.fromkeys([*dtypes, torch.float32])))
    print(f"copy {measured.copy_gb_per_s:.4g} GB/s; product {measured.product_tflop_per_s} TFLOP/s")
    notes = (
        [] if device == "cuda" else [f"no GPU: Triton's kernels were not timed, and batches are of {CPU_BATCH} images"]
    )
    found: list[Row] = []
    wrong = []
    if options.tiny:
        torch.compiler.set_stance("force_eager")
        work, rounds = tiny_measurements(device), 2
    else:
        work = list(measurements(options.op, tuple(options.recipe), dtypes, device))
    try:
        for each in tqdm(work, desc="kernels", file=sys.stderr, disable=None):
            try:
                results = rows(each, measured, rounds=rounds, device=device, note=notes.append)
            except Exception as error:  # the other ops' numbers must not be lost to it
                wrong.append(f"WRONG, not timed: {each.name}: {type(error).__name__}: {error}")
                tqdm.write(wrong[-1], file=sys.stdout)
                continue
            finally:
                torch.compiler.reset()  # a compiled peer of another shape would be counted as a recompilation
            tqdm.write(table(results), file=sys.stdout)
            found += results
    finally:  # whatever ends it, what was measured stays
        what = f"every op against its peers on {record.machine()}, interleaved, medians of {rounds}"
        record.write(out, what=what, ceilings=measured, rows=found, notes=[*notes, *wrong])
        if found:
            roofline.draw(found, measured, record.machine(), out.with_suffix(".png"))
    for words in notes:
        print(f"note: {words}")
    print(f"{time.perf_counter() - start:.0f} s on {record.machine()}; {out} and its picture written")
    return 1 if wrong else 0


def tiny_measurements(device: str) -> list[Measurement]:
    """Of one op, to try the suite out."""
    return list(bench_feature_loss.measurements((TINY,), torch.float32, device))


def measurements(
    ops: tuple[str, ...], recipes: tuple[str, ...], dtypes: list[torch.dtype], device: str
) -> Iterator[Measurement]:
    """Of these ops at the shapes of these recipes."""

    def sized(cases):
        return cases if device == "cuda" else tuple(replace(case, batch=CPU_BATCH) for case in cases)

    for dtype in dtypes:
        if "replicate_conv2d" in ops:
            yield from bench_replicate_conv.measurements(sized(kernel_cases.conv_cases(recipes)), dtype, device)
        if "feature_loss" in ops:
            yield from bench_feature_loss.measurements(sized(kernel_cases.feature_cases(recipes)), dtype, device)
    if "critic_update" in ops:
        yield from bench_critic_update.measurements(kernel_cases.update_cases(recipes), device)


def table(results: list[Row]) -> str:
    """One measurement for people: a heading and a line for each contender, speeds as multiples of the best peer's."""
    if not results:
        return ""
    first = results[0]
    peers = [row.median_us for row in results if not row.contender.startswith("fastvae")]
    lines = [f"{first.op}: {first.case}, {first.dtype}, {first.work}"]
    for row in results:
        low, high = row.quartiles_us
        speed = f"{min(peers) / row.median_us:6.2f} x best peer" if peers else ""
        lines.append(
            f"  {row.contender:<26} {row.median_us:10.1f} us ({low:.1f} to {high:.1f})"
            f"  {row.gb_per_s:8.1f} GB/s {row.tflop_per_s:8.3f} TFLOP/s  {100 * row.of_floor:5.1f} % of floor  {speed}"
        )
    return "\n".join(lines)


@pytest.fixture(scope="module", params=OPS)
def op_rows(request, tiny) -> list[list[Row]]:
    """The rows of each case of an op at the celeba64 recipe's shapes, checked and taken in turns."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if tiny and request.param != "feature_loss":
        pytest.skip("tiny measures one op")
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    found = tiny_measurements(device) if tiny else measurements((request.param,), ("celeba64",), [dtype], device)
    measured = ceilings.measure(device, list(dict.fromkeys((dtype, torch.float32))))
    results = []
    with torch.compiler.set_stance("force_eager" if tiny else "default"):
        for each in found:
            if each.work in WITH_BACKWARD:
                results.append(rows(each, measured, rounds=2 if tiny else 15, device=device, note=print))
                torch.compiler.reset()  # a compiled peer of another shape would be counted as a recompilation
    return results


@pytest.mark.parametrize("ours", [False, True], ids=["best peer", "fastvae"])
def test_op(benchmark, op_rows, ours):
    """A sample is a call of each case; "best peer" is in every case the fastest that is not ours, eager or compiled."""
    benchmark.group = op_rows[0][0].op
    fastest = [min((row for row in case if row.is_ours == ours), key=lambda row: row.median_us) for case in op_rows]
    replay.hand_over(benchmark, (1e-6 * sum(call) for call in zip(*(row.samples_us for row in fastest), strict=True)))
