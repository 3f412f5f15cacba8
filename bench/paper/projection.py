"""The paper's two claims as arithmetic: a whole run from measured steps, and another GPU from measured ceilings.

The paper trains 5 epochs of CelebA's 202,599 images in batches of 64, in 10 hours, and reconstructs an image in
0.012 s, both on a GTX 1080 Ti. An epoch's last 39 images do not fill a batch and are left out: 3,165 steps an epoch.

Projection: a time measured here, in what the other GPU can run too (float32 products without tensor cores, ATen's
kernels, no compiler), is multiplied by the worse of two ratios, this machine's float32 product over the other's and
this machine's copy over the other's. That assumes that the code reaches the same share of the ceilings there. It errs
on the slow side where the code is bound by what scales less, and on the fast side as far as the other GPU falls short
of its data sheet, against which what is measured here is held. The host is taken to be the same: the launches of a
single image, most of its latency on a fast GPU, take there what they take here.
"""

from dataclasses import asdict, dataclass

from bench.measuring.ceilings import Ceilings

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
    """The paper's whole run.

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
        The worse of the two ratios, and in words which it is.
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


@dataclass(frozen=True)
class Verdict:
    """A claim held against what was measured.

    Attributes:
        claim: "train <= 10 h", ...
        where: the machine, and how it is known of it.
        limit, value: in the claim's unit; less is better.
        spread: first and third quartile of the value.
        unit: "h" or "s".
    """

    claim: str
    where: str
    limit: float
    value: float
    spread: tuple[float, float]
    unit: str

    @property
    def passes(self) -> bool:
        """Whether the value is within the limit."""
        return self.value <= self.limit

    @property
    def margin(self) -> float:
        """How many times the value goes into the limit; below 1 it fails."""
        return self.limit / self.value

    def as_json(self) -> dict:
        """For the record."""
        return {"line": str(self), **asdict(self), "passes": self.passes, "margin": self.margin}

    def __str__(self) -> str:
        low, high = self.spread
        found = f"{'PASS' if self.passes else 'FAIL'}, {self.value:.4g} {self.unit} ({low:.4g} to {high:.4g})"
        return f"{self.claim}: {found}, margin {self.margin:.3g} x, {self.where}"


def train(hours: float, spread: tuple[float, float], where: str) -> Verdict:
    """The claim about training."""
    return Verdict("train <= 10 h", where, 10.0, hours, spread, "h")


def inference(seconds: float, spread: tuple[float, float], where: str) -> Verdict:
    """The claim about the reconstruction of one image."""
    return Verdict("inference <= 0.012 s", where, 0.012, seconds, spread, "s")


def memory(used: float, where: str) -> Verdict:
    """What the paper's GPU implies: it has 11 GB."""
    return Verdict("memory <= 11 GB", where, PAPERS_GPU.memory / 1e9, used / 1e9, (used / 1e9, used / 1e9), "GB")
