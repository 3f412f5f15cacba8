"""The paper's two claims, train in 10 hours and reconstruct in 0.012 s: `python -m bench paper`.

Times real steps of the celeba64 recipe with the loader running, in windows, and extrapolates to the paper's run by the
counted steps; times the reconstruction of one image by `VAE.accelerate()`, with its copies from and to the host, and by
the plain module beside it. Then both, the plain module only, in float32 on ATen's kernels, projected to a GTX 1080 Ti
(bench/paper/projection.py). Beside them: peak memory, the share of this machine's measured ceilings, and the step by
part.

The loss network's weights are random, which takes as long as VGG-19's. Checkpoints, evaluations and pictures are not
timed. Without a GPU all of it runs on batches of 8, for a few steps.
"""

import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from bench.anatomy import picture
from bench.anatomy.table import PartRow
from bench.measuring import replay
from bench.measuring.tiny import tiny_run
from bench.paper.claims import ATEN
from bench.paper.measure import TRAINING, Size, measure
from bench.paper.one_image import INFERENCE, PLAIN
from bench.paper.projection import PAPERS_GPU
from bench.reporting import record, suite
from fastvae.config import Config
from fastvae.recipes import RECIPES
from fastvae.train.build import resolve

# An eighth of the recipe's, so that a run takes minutes.
CPU_BATCH = 8


def main(arguments: list[str]) -> int:
    """The command; returns its exit status: 1 if something could not be measured or, on a GPU, a verdict fails."""
    parser = suite.parser("paper", __doc__)
    parser.add_argument("--rounds", type=int, help="windows of steps; 12 on a GPU, 5 on a CPU")
    parser.add_argument("--steps", type=int, help="steps of a window; 40 on a GPU, 4 on a CPU")
    parser.add_argument("--data", help="images, as of `fastvae train`; the embedded faces unless given")
    options = suite.parse(parser, arguments, rounds=1, steps=1)
    size = size_of(tiny=options.tiny)
    size = replace(size, windows=options.rounds or size.windows, steps=options.steps or size.steps)
    on_gpu = torch.cuda.is_available()
    report = new_report()
    parts: list[PartRow] = []

    def measure_all() -> None:
        try:
            with tempfile.TemporaryDirectory(prefix="fastvae-") as folder:
                measure(config_of(options.data, Path(folder), tiny=options.tiny), size, report, parts)
        finally:
            if not on_gpu:
                report.extra["process_peak_bytes"] = process_peak()

    def draw_parts(path: Path) -> None:
        if parts:
            title = f"{record.machine()}, batch {report.extra['batch']}, {report.extra['here']}"
            picture.draw(parts, title, path)

    status = suite.run(report, options, measure_all, draw_parts)
    return status or int(on_gpu and not all(verdict.passes for verdict in report.verdicts))


def new_report() -> suite.Report:
    """An empty report, with what this machine cannot measure."""
    report = suite.Report(f"the paper's two claims on {record.machine()} and projected to a {PAPERS_GPU.name}")
    if not torch.cuda.is_available():
        report.note(
            f"no GPU: batches of {CPU_BATCH} and hours by images a second; not measured: the captured step, DALI on "
            "the GPU, images resident on the device, its peak memory, and an H200's time; a projection from a CPU "
            "leaves out what launching kernels takes"
        )
    return report


def size_of(*, tiny: bool) -> Size:
    """How much this machine runs."""
    if tiny:
        return Size(windows=2, steps=2, parts=1, images=3, ceilings=1)
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
    """Largest number of bytes that this process has held: a hint, no more, at what a GPU would need."""
    import resource  # not on Windows, where neither is the rest of a GPU machine

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


@pytest.fixture(scope="module")
def report(tiny: bool, tmp_path_factory) -> suite.Report:
    """One run for all tests of this file."""
    measured = new_report()
    measure(config_of(None, tmp_path_factory.mktemp("data"), tiny=tiny), size_of(tiny=tiny), measured, [])
    assert not measured.failures
    return measured


@pytest.mark.parametrize("projected", [False, True], ids=["here", "projected"])
@pytest.mark.parametrize(("work", "claim"), [(TRAINING, "train"), (INFERENCE, "inference")], ids=["train", "inference"])
def test_claim(work: str, claim: str, projected: bool, tiny: bool, report: suite.Report, benchmark):
    """Time of an image; projected to the paper's GPU it must hold the claim, unless tiny figures mean nothing."""
    judged = (r for r in report.rows if r.job["work"] == work and r.contender != PLAIN)
    (row,) = (r for r in judged if (r.contender == ATEN) == projected)
    replay.hand_over(benchmark, row.seconds)
    (verdict,) = (v for v in report.verdicts if v.name == claim and ("projected" in v.where) == projected)
    benchmark.extra_info["verdict"] = str(verdict)
    assert verdict.passes or not projected or tiny, str(verdict)
