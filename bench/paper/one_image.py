"""The reconstruction of one image, from the host's memory and back to it, in milliseconds.

The claim is judged by what a user would call, `VAE.accelerate()`. The plain module is timed beside it, and projected to
the paper's GPU, whose time can be told from ATen's kernels only.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from bench.inference.accelerate_contenders import ACCELERATE
from bench.inference.contenders import smooth_images, trained_vae
from bench.inference.isolated import Contender, all_ended
from bench.measuring.clock import Samples, interleaved, latencies, quantiles, quartiles
from bench.measuring.closeness import relative_error
from bench.paper import projection
from bench.paper.claims import ATEN, row, where
from bench.reporting.suite import Report
from fastvae import VAE
from fastvae.config import Config
from fastvae.inference.accelerated import BOUNDS, AcceleratedVAE

INFERENCE = "reconstruction of one image"
# As torch's users get it.
PLAIN = "fp32 by torch's defaults (on a GPU TF32 convolutions), eager"
_PRECISIONS = {torch.float32: "fp32", torch.bfloat16: "bf16"}
# Calls that come before those that are timed in a process of its own.
_UNTIMED = 10


def as_it_runs_here(config: Config, calls: int, report: Report) -> None:
    """Adds the rows of the accelerated and the plain module, and the verdict of the accelerated one.

    Raises:
        AssertionError: the accelerated module computes something else.
        RuntimeError: one of them cannot run.
    """
    device, vae = config.train.device, _vae(config)
    fast, image = vae.accelerate(), _image(config)
    form = form_of(fast)
    if fast.backend == "native":  # its threads and torch's would disturb each other in one process
        del fast
        samples = {form: _in_a_process_of_its_own(config.model.width, calls)}
        samples |= _latencies({PLAIN: _call(vae, image, device)}, calls, device)
    else:
        accelerated, plain = _call(fast, image, device), _call(vae, image, device)
        _check(relative_error(accelerated(), plain()), BOUNDS[fast.dtype], form)
        samples = _latencies({form: accelerated, PLAIN: plain}, calls, device)
    for how, taken in samples.items():
        _report(how, taken, report)
    low, median, high = quartiles(samples[form])
    report.verdicts.append(projection.inference(median, (low, high), f"{where(None)}, VAE.accelerate() in {form}"))


def projected(config: Config, calls: int, report: Report, factor: float) -> None:
    """Adds the row of the plain module on ATen, and the verdict of its projection to the paper's GPU.

    Args:
        config: resolved.
        calls: that are timed.
        report: gets both.
        factor: by which the device's part of the time grows.
    """
    device, vae, image = config.train.device, _vae(config), _image(config)
    samples = _latencies({ATEN: _call(vae, image, device)}, calls, device)[ATEN]
    _report(ATEN, samples, report)
    on_device_s = _on_device(vae, image.to(device), calls, report) if device == "cuda" else None
    low, median, high = quartiles(projection.latency(s, factor, on_device_s) for s in samples)
    report.verdicts.append(projection.inference(median, (low, high), f"{where(factor)}, the plain module"))


def form_of(fast: AcceleratedVAE) -> str:
    """Backend and precision: "native fp32", "captured bf16"."""
    return f"{fast.backend} {_PRECISIONS[fast.dtype]}"


def _vae(config: Config) -> VAE:
    model = config.model
    return trained_vae(model.width, model.image_size, model.latent, model.stages).to(config.train.device)


def _image(config: Config) -> Tensor:
    image = smooth_images(1, config.model.image_size)
    return image.pin_memory() if config.train.device == "cuda" else image


def _call(model: VAE | AcceleratedVAE, image: Tensor, device: str) -> Callable[[], Tensor]:
    @torch.inference_mode()
    def call() -> Tensor:
        return model.reconstruct(image.to(device, non_blocking=True)).cpu()

    return call


def _latencies(calls: dict[str, Callable[[], Tensor]], rounds: int, device: str) -> Samples:
    def fail(_, error: Exception) -> None:
        raise error

    return latencies(calls, rounds=rounds, device=device, drop=fail)


def _in_a_process_of_its_own(width: int, calls: int) -> list[float]:
    contender = Contender(ACCELERATE, 1, width, torch.get_num_threads(), fresh_caches=False)
    with all_ended([contender]):
        _check(contender.prepare()["error"], BOUNDS[torch.float32], ACCELERATE)
        return contender.turn(calls, _UNTIMED)


def _check(error: float, bound: float, form: str) -> None:
    assert error <= bound, f"{form}: relative error {error:.3g}, bound {bound:g}"


def _report(how: str, samples: list[float], report: Report) -> None:
    report.rows.append(row(INFERENCE, how, samples))
    p50, p99 = quantiles(samples, (0.5, 0.99))
    print(f"{how}: {INFERENCE}, p50 {1e3 * p50:.3f} ms, p99 {1e3 * p99:.3f} ms")


def _on_device(vae: VAE, image: Tensor, calls: int, report: Report) -> float | None:
    """Median seconds of the reconstruction without its launches; None, and a note, if it cannot be captured."""

    @torch.inference_mode()
    def call() -> Tensor:
        return vae.reconstruct(image)

    samples = interleaved({INFERENCE: call}, rounds=calls, device="cuda", note=report.note)
    return quartiles(samples[INFERENCE])[1] if INFERENCE in samples else None
