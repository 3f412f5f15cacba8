"""The ops under pytest-benchmark: `pytest bench/bench_kernels.py`. `python -m bench kernels` tells more.

An op's sample is one call of each of its cases at the celeba64 recipe's shapes, forward and backward; "best peer" is in
every case the fastest of those that are not ours, eager or compiled.
"""

import pytest
import torch

from bench import ceilings, kernels, replay
from bench.measurement import Row, rows

WITH_BACKWARD = ("forward and backward", "loss and gradients", "one step")


@pytest.fixture(scope="module", params=kernels.OPS)
def op_rows(request, tiny) -> list[list[Row]]:
    """The rows of each case of an op, checked and taken in turns."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if tiny and request.param != "feature_loss":
        pytest.skip("tiny measures one op")
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    found = (
        kernels.tiny_measurements(device)
        if tiny
        else kernels.measurements((request.param,), ("celeba64",), [dtype], device)
    )
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
    benchmark.group = op_rows[0][0].op
    fastest = [min((row for row in case if row.is_ours == ours), key=lambda row: row.median_us) for case in op_rows]
    replay.hand_over(benchmark, (1e-6 * sum(call) for call in zip(*(row.samples_us for row in fastest), strict=True)))
