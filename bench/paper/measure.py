"""Measures what the paper's claims need: as this machine does it best, and as a GTX 1080 Ti would have to."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from bench.anatomy import table as step_table
from bench.anatomy.real_steps import RealSteps, Window
from bench.measuring import ceilings
from bench.measuring.clock import interleaved, latencies, quartiles
from bench.measuring.exact_float32 import exact_float32
from bench.paper import projection
from bench.paper.findings import Findings, row
from bench.paper.projection import PAPERS_GPU
from bench.reporting import record
from fastvae import VAE
from fastvae.config import Config
from fastvae.data.dataset import EMBEDDED
from fastvae.kernels import force
from fastvae.train.build import build

TRAINING, FIRST_EPOCH, INFERENCE = "training", "training, first epoch", "reconstruction of one image"
ATEN = "fp32 on ATen"


@dataclass(frozen=True)
class Size:
    """How much is run: windows, steps of each, calls of each part of the step, reconstructions."""

    windows: int
    steps: int
    parts: int
    images: int


def measure(config: Config, size: Size, found: Findings) -> None:
    """Fills in the findings. A stage that fails is noted among them and costs the other stages nothing.

    Args:
        config: resolved.
        size: of what is run.
        found: changed.
    """
    train = config.train
    dtype = torch.bfloat16 if train.precision == "bf16" else torch.float32
    best = train.precision + ", compiled" * (train.compile == "on") + ", captured" * (train.cuda_graph == "on")
    found.facts |= {"batch": train.batch_size, "data": config.data, "steps_of_a_window": size.steps, "here": best}

    found.note(what_loading_is(config.data))

    def attempt(stage: str, do: Callable[[], None]) -> None:
        try:
            do()
        except Exception as error:
            found.failures.append(f"FAILED, not measured: {stage}: {type(error).__name__}: {error}")

    windows: list[Window] = []

    def as_it_runs_here() -> None:
        found.ceilings = ceilings.measure(train.device, list(dict.fromkeys([dtype, torch.float32])))
        with RealSteps(config) as real:
            windows.extend(_train(real, size, best, found))
            _memory(real, best, found)
        _shares(config, windows, dtype, found)

    def projected() -> None:
        with as_the_papers_gpu():
            limits = ceilings.measure(train.device, [torch.float32])
            factor, words = projection.slowdown(limits)
            found.facts["projection"] = {"ceilings": limits.as_json(), "factor": factor, "worse_ratio": words}
            found.note(f"projected times are {factor:.3g} times those measured in {ATEN}, by {words}")
            with RealSteps(replace(config, train=replace(train, precision="fp32", compile="off"))) as real:
                _train(real, size, ATEN, found, factor)
                _memory(real, ATEN, found)
            _reconstruct(config, size, ATEN, found, factor)

    attempt("training as it runs here", as_it_runs_here)
    attempt("reconstruction as it runs here", lambda: _reconstruct(config, size, "fp32, eager", found))
    attempt("the projection", projected)
    if windows:  # last, since compiling the parts takes longest, and the claims do not need them
        attempt("the step by part", lambda: _by_part(config, windows, size, found))


def what_loading_is(data: str) -> str:
    """For people: what the hours of training spend on their images."""
    if data != EMBEDDED:
        return f"the hours of training include loading {data}, and what decoding it needs; none if it is packed"
    return (
        "the hours of training include loading the embedded faces, which are drawn and packed: no JPEG is decoded in "
        "them; `python -m bench loader` times decoding, with DALI where it is installed"
    )


@contextmanager
def as_the_papers_gpu() -> Iterator[None]:
    """No Triton and no tensor cores: what a GPU of compute capability 6.1 can run."""
    with exact_float32(), force("aten"):
        yield


def _train(real: RealSteps, size: Size, how: str, found: Findings, factor: float | None = None) -> list[Window]:
    """Trains window by window and judges; with a factor the other GPU. Returns the windows of a usual epoch."""
    print(f"{how}: the step is ready after {real.warm_up():.1f} s")
    first: list[Window] = []
    while real.fills_in_first_epoch and real.epoch == 0:
        first.append(real.window(size.steps))
    windows: list[Window] = []
    try:
        for _ in range(size.windows):
            windows.append(real.window(size.steps))
    finally:  # a time limit leaves what there is
        windows, first = _whole(windows), _whole(first)
        if windows:
            _judge_training(windows, first, how, found, factor)
    return windows


def _whole(windows: Sequence[Window]) -> list[Window]:
    """Those that the end of an epoch did not cut short."""
    return [w for w in windows if w.steps == max(other.steps for other in windows)]


def _judge_training(
    windows: list[Window], first: list[Window], how: str, found: Findings, factor: float | None
) -> None:
    found.rows.append(row(TRAINING, how, [w.image_s for w in windows]))
    image_s = quartiles(w.image_s for w in windows)
    first_image_s = image_s
    if first:
        found.rows.append(row(FIRST_EPOCH, how, [w.image_s for w in first]))
        first_image_s = quartiles(w.image_s for w in first)
    low, hours, high = (
        projection.run_hours(usual, max(usual, filling)) * (factor or 1.0)
        for usual, filling in zip(image_s, first_image_s, strict=True)
    )
    found.verdicts.append(projection.train(hours, (low, high), _where(factor)))
    words = f"; {1 / first_image_s[1]:.1f} in the first epoch, which loads the images" if first else ""
    print(
        f"{how}: {1 / image_s[1]:.1f} images/s, median of {len(windows)} windows of {windows[0].steps} steps with the "
        f"loader running{words}"
    )


def _where(factor: float | None) -> str:
    if factor is None:
        return f"measured on {record.machine()}"
    return f"projected to a {PAPERS_GPU.name} from {record.machine()} in {ATEN}"


def _memory(real: RealSteps, how: str, found: Findings) -> None:
    """The GPU's peak memory with all of CelebA resident, whatever data set was at hand."""
    if real.memory is None:
        return
    allocated, reserved = real.memory
    celeba = projection.IMAGES * 3 * real.trainer.config.model.image_size**2 if real.fills_in_first_epoch else 0
    used = reserved - real.resident + celeba
    peaks = {"allocated_bytes": allocated, "reserved_bytes": reserved, "with_celeba_bytes": used}
    found.facts.setdefault("memory", {})[how] = peaks
    print(f"{how}: peak memory {allocated / 1e9:.3g} GB allocated, {reserved / 1e9:.3g} GB reserved by torch")
    images = f"with {celeba / 1e9:.2f} GB of CelebA resident" if celeba else "with CelebA streamed"
    found.verdicts.append(projection.memory(used, f"{how} on {record.machine()}, reserved by torch, {images}"))


def _shares(config: Config, windows: Sequence[Window], dtype: torch.dtype, found: Findings) -> None:
    """What the whole step reaches of the measured ceilings."""
    step_s = quartiles(w.step_s for w in windows)[1]
    costs = step_table.costs(config, dtype).values()
    flops, moved = sum(c.flops for c in costs), sum(c.bytes for c in costs)
    limits = found.ceilings
    of_copy = moved / step_s / 1e9 / limits.copy_gb_per_s
    of_product = {name: flops / step_s / 1e12 / limit for name, limit in limits.product_tflop_per_s.items()}
    found.facts["step"] = {
        "median_s": step_s,
        "flops": flops,
        "least_bytes": moved,
        "of_product": of_product,
        "of_copy": of_copy,
    }
    words = [
        f"{100 * share:.1f} % of the {limits.name(name)} product, {limits.product_tflop_per_s[name]:.4g} TFLOP/s"
        for name, share in of_product.items()
    ]
    words.append(f"{100 * of_copy:.1f} % of the copy, {limits.copy_gb_per_s:.4g} GB/s")
    print(f"a step of {flops / 1e9:.1f} GFLOP and {moved / 1e6:.0f} MB at the least reaches {'; '.join(words)}")


def _by_part(config: Config, windows: Sequence[Window], size: Size, found: Findings) -> None:
    found.parts = step_table.measure(
        build(config).step,
        config,
        whole_s=[w.step_s for w in windows],
        wait_s=[w.waited_s / w.steps for w in windows],
        ceilings=found.ceilings,
        rounds=size.parts,
        note=found.note,
    )
    print(step_table.text(found.parts))


def _reconstruct(config: Config, size: Size, how: str, found: Findings, factor: float | None = None) -> None:
    """One image from the host through the VAE as it is and back to the host."""
    device, model = config.train.device, config.model
    vae = VAE(model.image_size, model.width, model.latent).to(device).eval()
    image = torch.rand(1, 3, model.image_size, model.image_size) * 2 - 1
    image = image.pin_memory() if device == "cuda" else image

    @torch.inference_mode()
    def call() -> Tensor:
        return vae.reconstruct(image.to(device, non_blocking=True)).cpu()

    samples = latencies({INFERENCE: call}, rounds=size.images, device=device)[INFERENCE]
    measured = row(INFERENCE, how, samples)
    found.rows.append(measured)
    print(f"{how}: {INFERENCE}, p50 {measured.median_us / 1e3:.3f} ms, p99 {measured.p99_us / 1e3:.3f} ms")
    if factor is not None:
        on_device_s = _on_device(vae, image.to(device), size, found) if device == "cuda" else None
        samples = [projection.latency(s, factor, on_device_s) for s in samples]
    low, median, high = quartiles(samples)
    found.verdicts.append(projection.inference(median, (low, high), _where(factor)))


def _on_device(vae: VAE, image: Tensor, size: Size, found: Findings) -> float | None:
    """Median seconds of the reconstruction without its launches; None, and a note, if it cannot be captured."""

    @torch.inference_mode()
    def call() -> Tensor:
        return vae.reconstruct(image)

    samples = interleaved({INFERENCE: call}, rounds=size.images, device="cuda", note=found.note)
    return quartiles(samples[INFERENCE])[1] if INFERENCE in samples else None
