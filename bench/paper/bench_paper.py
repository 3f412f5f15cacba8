"""The paper's two claims, train in 10 hours and reconstruct in 0.012 s: `python -m bench paper`.

Times real steps of the celeba64 recipe with the loader running, in windows, and extrapolates to the paper's run by the
counted steps; times the reconstruction of one image with its copies from and to the host. Both as this machine does
them, and in float32 on ATen's kernels, projected to a GTX 1080 Ti (bench/paper/projection.py). Beside them: peak
memory, the share of this machine's measured ceilings, and the step by part.

The loss network's weights are random, which takes as long as VGG-19's. Checkpoints, evaluations and pictures are not
timed. Without a GPU all of it runs on batches of 8, for a few steps.
"""

import argparse
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from bench.measuring import replay
from bench.measuring.tiny import tiny_run
from bench.paper.findings import Findings
from bench.paper.measure import ATEN, INFERENCE, TRAINING, Size, measure
from bench.reporting import record
from fastvae.config import Config
from fastvae.recipes import RECIPES
from fastvae.train.build import resolve

# An eighth of the recipe's, so that a run takes minutes.
CPU_BATCH = 8


def main(arguments: list[str]) -> int:
    """The command; returns its exit status: 1 if something could not be measured or, on a GPU, a verdict fails."""
    parser = argparse.ArgumentParser(
        prog="python -m bench paper", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, help="windows of steps; 12 on a GPU, 5 on a CPU")
    parser.add_argument("--steps", type=int, help="steps of a window; 40 on a GPU, 4 on a CPU")
    parser.add_argument("--data", help="images, as of `fastvae train`; the embedded faces unless given")
    parser.add_argument("--tiny", action="store_true", help="seconds instead of minutes; the figures mean nothing")
    parser.add_argument(
        "--out", type=record.place, help="the record, bench/records/DATE-MACHINE-paper.json unless given"
    )
    options = parser.parse_args(arguments)
    for name in ("rounds", "steps"):
        if getattr(options, name) is not None and getattr(options, name) < 1:
            parser.error(f"--{name} must be 1 or more; got {getattr(options, name)}")
    record.exit_on_sigterm()
    out = options.out or record.path_for("paper")
    record.check_writable(out)
    size = size_of(tiny=options.tiny)
    size = replace(size, windows=options.rounds or size.windows, steps=options.steps or size.steps)
    found = Findings()
    if not torch.cuda.is_available():
        found.note(
            f"no GPU: batches of {CPU_BATCH} and hours by images a second; not measured: the captured step, DALI on "
            "the GPU, images resident on the device, its peak memory, and an H200's time; a projection from a CPU "
            "leaves out what launching kernels takes"
        )
    try:
        with tempfile.TemporaryDirectory(prefix="fastvae-") as folder:
            measure(config_of(options.data, Path(folder), tiny=options.tiny), size, found)
    finally:  # whatever ends it, what was measured stays
        if not torch.cuda.is_available():
            found.facts["process_peak_bytes"] = process_peak()
        found.write(out)
        for line in (*found.verdicts, *found.failures, f"{out} written"):
            print(line)
    failed = found.failures or (torch.cuda.is_available() and not all(v.passes for v in found.verdicts))
    return 1 if failed else 0


def size_of(*, tiny: bool) -> Size:
    """How much this machine runs."""
    if tiny:
        return Size(windows=2, steps=2, parts=1, images=3)
    if torch.cuda.is_available():
        return Size(windows=12, steps=40, parts=50, images=500)
    return Size(windows=5, steps=4, parts=5, images=100)


def config_of(data: str | None, folder: Path, *, tiny: bool) -> Config:
    """The celeba64 recipe with the stand-in loss network, resolved for this machine.

    Args:
        data: images to train on; None for the embedded faces.
        folder: where a tiny run's images are written.
        tiny: scaled down.
    """
    config = RECIPES["celeba64"]()
    config = replace(config, data=data or "faces", objective=replace(config.objective, vgg="random"))
    if not torch.cuda.is_available():
        config = replace(config, train=replace(config.train, batch_size=CPU_BATCH))
    return resolve(tiny_run(config, folder) if tiny else config)[0]


def process_peak() -> int:
    """Bytes of memory that this process has held at most: no more than a hint at what a GPU would need."""
    import resource  # not on Windows, where neither is the rest of a GPU machine

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


@pytest.fixture(scope="module")
def findings(tiny: bool, tmp_path_factory) -> Findings:
    """One run for all tests of this file."""
    found = Findings()
    measure(config_of(None, tmp_path_factory.mktemp("data"), tiny=tiny), size_of(tiny=tiny), found)
    assert not found.failures
    return found


@pytest.mark.parametrize("projected", [False, True], ids=["here", "projected"])
@pytest.mark.parametrize(("work", "claim"), [(TRAINING, "train"), (INFERENCE, "inference")], ids=["train", "inference"])
def test_claim(work: str, claim: str, projected: bool, tiny: bool, findings: Findings, benchmark):
    """Time of an image; projected to the paper's GPU it must hold the claim, unless tiny figures mean nothing."""
    (row,) = (r for r in findings.rows if r.work == work and (r.how == ATEN) == projected)
    replay.hand_over(benchmark, [s / 1e6 for s in row.samples_us])
    (verdict,) = (v for v in findings.verdicts if v.claim.startswith(claim) and ("projected" in v.where) == projected)
    benchmark.extra_info["verdict"] = str(verdict)
    assert verdict.passes or not projected or tiny, str(verdict)
