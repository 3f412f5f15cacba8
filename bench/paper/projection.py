"""The paper's two claims as arithmetic: a complete run from measured steps, and another GPU from measured ceilings.

The paper trains 5 epochs of CelebA's 202,599 images in batches of 64, in 10 hours, and reconstructs an image in
0.012 s, both on a GTX 1080 Ti. An epoch's last 39 images do not fill a batch and are left out: 3,165 steps an epoch.

Projection: a time measured here, in what the other GPU can run too (float32 products without tensor cores, ATen's
kernels, no compiler), is multiplied by the worse of two ratios, this machine's float32 product over the other's and
this machine's copy over the other's. That assumes that the code reaches the same share of the ceilings there. The
projection is too slow where the code is bound by something that scales less, and too fast as far as the other GPU falls
short of its data sheet, which this machine's measurements are compared with. The host is taken to be the same: the
launches of a single image, most of its latency on a fast GPU, take as long there as here.
"""

from dataclasses import dataclass

from bench.measuring.ceilings import Ceilings
from bench.measuring.verdicts import Verdict

IMAGES, EPOCHS, BATCH = 202_599, 5, 64
STEPS_PER_EPOCH = IMAGES // BATCH


@dataclass(frozen=True)
class Gpu:
    """A GPU as its data sheet has it. Memory in bytes, what may be used of it."""

    name: str
    product_tflop_per_s: float
    copy_gb_per_s: float
    memory: float


PAPERS_GPU = Gpu("GTX 1080 Ti", product_tflop_per_s=11.34, copy_gb_per_s=484.0, memory=11e9)


def run_hours(seconds_per_image: float, first_epoch_seconds_per_image: float | None = None) -> float:
    """The paper's complete run.

    Args:
        seconds_per_image: of training, loading included.
        first_epoch_seconds_per_image: of the first epoch, if it loads what later ones keep; None for the same.

    Returns:
        Hours for 5 times 3,165 steps of 64 images.
    """
    first = seconds_per_image if first_epoch_seconds_per_image is None else first_epoch_seconds_per_image
    return STEPS_PER_EPOCH * BATCH * (first + (EPOCHS - 1) * seconds_per_image) / 3600


def slowdown(ceilings: Ceilings, gpu: Gpu = PAPERS_GPU) -> tuple[float, str]:
    """By how much a time measured here grows on another GPU; below 1 where that one is faster.

    Args:
        ceilings: of this machine, its float32 product without tensor cores.
        gpu: the other one.

    Returns:
        The worse of the two ratios, and a description of which it is.
    """
    product, copy = ceilings.product_tflop_per_s["float32"], ceilings.copy_gb_per_s
    ratios = [
        (product / gpu.product_tflop_per_s, f"products, {product:.4g} TFLOP/s here, {gpu.product_tflop_per_s} there"),
        (copy / gpu.copy_gb_per_s, f"copies, {copy:.4g} GB/s here, {gpu.copy_gb_per_s:g} there"),
    ]
    return max(ratios)


def latency(seconds: float, factor: float, on_device_s: float | None = None) -> float:
    """A latency on another GPU.

    Args:
        seconds: of the call here, as its caller sees it.
        factor: by `slowdown`.
        on_device_s: how much of it the device computes; the rest does not grow. None: all of it.

    Returns:
        Seconds there.
    """
    grows = seconds if on_device_s is None else min(seconds, on_device_s)
    return seconds - grows + factor * grows


def train(hours: float, spread: tuple[float, float], where: str) -> Verdict:
    """The claim about training."""
    return Verdict("train", "<=", 10.0, hours, spread, "h", where)


def inference(seconds: float, spread: tuple[float, float], where: str) -> Verdict:
    """The claim about the reconstruction of one image."""
    return Verdict("inference", "<=", 0.012, seconds, spread, "s", where)


def memory(used: float, where: str) -> Verdict:
    """What the paper's GPU implies: it has 11 GB."""
    return Verdict("memory", "<=", PAPERS_GPU.memory / 1e9, used / 1e9, (used / 1e9, used / 1e9), "GB", where)
