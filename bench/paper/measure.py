"""Measures training and reconstruction for the paper's claims: at this machine's best, and as a GTX 1080 Ti must."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace

import torch

from bench.anatomy import table
from bench.anatomy.real_steps import RealSteps, Window
from bench.anatomy.table import PartRow
from bench.measuring import ceilings
from bench.measuring.clock import quartiles
from bench.paper import claims, one_image, projection
from bench.paper.claims import ATEN
from bench.reporting import record
from bench.reporting.suite import Report
from fastvae.config import Config
from fastvae.data.dataset import EMBEDDED
from fastvae.exact_float32 import exact_float32
from fastvae.kernels import force
from fastvae.train.build import build

TRAINING, FIRST_EPOCH = "training", "training, first epoch"


@dataclass(frozen=True)
class Size:
    """How much is run: windows, steps of each, calls of each part of the step, reconstructions, calls for ceilings."""

    windows: int
    steps: int
    parts: int
    images: int
    ceilings: int = 10


def measure(config: Config, size: Size, report: Report, parts: list[PartRow]) -> None:
    """Fills in the report. A stage that fails is noted there and does not stop the other stages.

    Args:
        config: resolved.
        size: of what is run.
        report: gets rows, verdicts, ceilings, further entries, notes and failures.
        parts: gets the parts of the step.
    """
    train = config.train
    dtype = torch.bfloat16 if train.precision == "bf16" else torch.float32
    best = train.precision + ", compiled" * (train.compile == "on") + ", captured" * (train.cuda_graph == "on")
    report.extra |= {
        "batch": train.batch_size,
        "data": config.data,
        "steps_of_a_window": size.steps,
        "here": best,
        "parts": [],
    }

    report.note(what_loading_is(config.data))

    def attempt(stage: str, do: Callable[[], None]) -> None:
        try:
            do()
        except Exception as error:
            report.fail(f"FAILED, not measured: {stage}: {type(error).__name__}: {error}")
        report.keep()

    windows: list[Window] = []

    def as_it_runs_here() -> None:
        report.ceilings = ceilings.measure(
            train.device, list(dict.fromkeys([dtype, torch.float32])), rounds=size.ceilings
        )
        with RealSteps(config) as real:
            windows.extend(_train(real, size, best, report))
            _memory(real, best, report)
        _shares(config, windows, dtype, report)

    def projected() -> None:
        with as_the_papers_gpu():
            limits = ceilings.measure(train.device, [torch.float32], rounds=size.ceilings)
            factor, worse = projection.slowdown(limits)
            report.extra["projection"] = {"ceilings": limits.as_json(), "factor": factor, "worse_ratio": worse}
            report.note(f"projected times are {factor:.3g} times those measured in {ATEN}, by {worse}")
            with RealSteps(replace(config, train=replace(train, precision="fp32", compile="off"))) as real:
                _train(real, size, ATEN, report, factor)
                _memory(real, ATEN, report)
            one_image.projected(config, size.images, report, factor)

    attempt("training as it runs here", as_it_runs_here)
    attempt("reconstruction as it runs here", lambda: one_image.as_it_runs_here(config, size.images, report))
    attempt("the projection", projected)
    if windows:  # last, since compiling the parts takes longest, and the claims do not need them
        attempt("the step by part", lambda: _by_part(config, windows, size, report, parts))


def what_loading_is(data: str) -> str:
    """A note on how the hours of training include the loading of images."""
    if data != EMBEDDED:
        return f"the hours of training include loading {data}, and what decoding it needs; none if it is packed"
    return (
        "the hours of training include loading the embedded faces, which are drawn and packed: no JPEG is decoded in "
        "them; `python -m bench loader` times decoding, with DALI where it is installed"
    )


@contextmanager
def as_the_papers_gpu() -> Iterator[None]:
    """No Triton, no tensor cores, contiguous maps: what a GPU of compute capability 6.1 would run."""
    with exact_float32(), force("aten", capability=(6, 1)):
        yield


def _train(real: RealSteps, size: Size, how: str, report: Report, factor: float | None = None) -> list[Window]:
    """Trains window by window and judges; with a factor the other GPU. Returns the windows of a usual epoch."""
    print(f"{how}: the step is ready after {real.warm_up():.1f} s")
    first: list[Window] = []
    while real.fills_in_first_epoch and real.epoch == 0:
        first.append(real.window(size.steps))
    windows: list[Window] = []
    try:
        for _ in range(size.windows):
            windows.append(real.window(size.steps))
    finally:  # after a time limit, too
        windows, first = _complete(windows), _complete(first)
        if windows:
            _judge_training(windows, first, how, report, factor)
    return windows


def _complete(windows: Sequence[Window]) -> list[Window]:
    """Those that the end of an epoch did not cut short."""
    return [w for w in windows if w.steps == max(other.steps for other in windows)]


def _judge_training(windows: list[Window], first: list[Window], how: str, report: Report, factor: float | None) -> None:
    report.rows.append(claims.row(TRAINING, how, [w.image_s for w in windows]))
    image_s = quartiles(w.image_s for w in windows)
    first_image_s = image_s
    if first:
        report.rows.append(claims.row(FIRST_EPOCH, how, [w.image_s for w in first]))
        first_image_s = quartiles(w.image_s for w in first)
    low, hours, high = (
        projection.run_hours(usual, max(usual, filling)) * (factor or 1.0)
        for usual, filling in zip(image_s, first_image_s, strict=True)
    )
    report.verdicts.append(projection.train(hours, (low, high), claims.where(factor)))
    of_first = f"; {1 / first_image_s[1]:.1f} in the first epoch, which loads the images" if first else ""
    print(
        f"{how}: {1 / image_s[1]:.1f} images/s, median of {len(windows)} windows of {windows[0].steps} steps with the "
        f"loader running{of_first}"
    )


def _memory(real: RealSteps, how: str, report: Report) -> None:
    """The GPU's peak memory with all of CelebA resident, whatever data set was at hand."""
    if real.memory is None:
        return
    allocated, reserved = real.memory
    celeba = projection.IMAGES * 3 * real.trainer.config.model.image_size**2 if real.fills_in_first_epoch else 0
    used = reserved - real.resident + celeba
    peaks = {"allocated_bytes": allocated, "reserved_bytes": reserved, "with_celeba_bytes": used}
    report.extra.setdefault("memory", {})[how] = peaks
    print(f"{how}: peak memory {allocated / 1e9:.3g} GB allocated, {reserved / 1e9:.3g} GB reserved by torch")
    images = f"with {celeba / 1e9:.2f} GB of CelebA resident" if celeba else "with CelebA streamed"
    report.verdicts.append(projection.memory(used, f"{how} on {record.machine()}, reserved by torch, {images}"))


def _shares(config: Config, windows: Sequence[Window], dtype: torch.dtype, report: Report) -> None:
    """What the complete step reaches of the measured ceilings."""
    step_s = quartiles(w.step_s for w in windows)[1]
    costs = table.costs(config, dtype).values()
    flops, moved = sum(c.flops for c in costs), sum(c.bytes for c in costs)
    limits = report.ceilings
    of_copy = moved / step_s / 1e9 / limits.copy_gb_per_s
    of_product = {name: flops / step_s / 1e12 / limit for name, limit in limits.product_tflop_per_s.items()}
    report.extra["step"] = {
        "median_s": step_s,
        "flops": flops,
        "least_bytes": moved,
        "of_product": of_product,
        "of_copy": of_copy,
    }
    reached = [
        f"{100 * share:.1f} % of the {limits.name(name)} product, {limits.product_tflop_per_s[name]:.4g} TFLOP/s"
        for name, share in of_product.items()
    ]
    reached.append(f"{100 * of_copy:.1f} % of the copy, {limits.copy_gb_per_s:.4g} GB/s")
    print(f"a step of {flops / 1e9:.1f} GFLOP and {moved / 1e6:.0f} MB at the least reaches {'; '.join(reached)}")


def _by_part(config: Config, windows: Sequence[Window], size: Size, report: Report, parts: list[PartRow]) -> None:
    parts += table.measure(
        build(config).step,
        config,
        step_s=[w.step_s for w in windows],
        wait_s=[w.waited_s / w.steps for w in windows],
        ceilings=report.ceilings,
        rounds=size.parts,
        note=report.note,
    )
    report.extra["parts"] = [asdict(part) for part in parts]
    print(table.text(parts))
