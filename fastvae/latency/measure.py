"""Latencies of the accelerated and the plain VAE, measured alternately."""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fastvae.errors import FastvaeError
from fastvae.inference.accelerated import BOUNDS, AcceleratedVAE
from fastvae.inference.agreement import largest_error
from fastvae.models import VAE

# Calls per turn. The first ones are not timed: they bring the weights back into the caches, while the other module's
# threads go to sleep.
_UNTIMED, _TIMED = 2, 5


@dataclass(frozen=True)
class Latency:
    """Latency of one module in milliseconds, from the call until its results are available."""

    p50_ms: float
    p95_ms: float
    p99_ms: float
    images_per_s: float
    calls: int


@dataclass(frozen=True)
class Cell:
    """One verb for one batch size.

    Attributes:
        error: largest difference between accelerated and plain results, relative to the largest value.
        speedup: plain median over accelerated median.
    """

    verb: str
    batch: int
    accelerated: Latency
    plain: Latency
    error: float

    @property
    def speedup(self) -> float:
        return self.plain.p50_ms / self.accelerated.p50_ms


def latency(seconds: list[float], batch: int) -> Latency:
    """Interpolated percentiles, and images per second at the median."""
    p50, p95, p99 = np.percentile(np.asarray(seconds) * 1e3, [50, 95, 99]).tolist()
    return Latency(round(p50, 4), round(p95, 4), round(p99, 4), round(1e3 * batch / p50, 1), len(seconds))


def measure(
    vae: VAE,
    accelerated: Mapping[int, AcceleratedVAE],
    verbs: tuple[str, ...],
    seconds: float,
) -> Iterator[Cell]:
    """Measures every verb at every batch size.

    Args:
        vae: the plain module, in eval mode on the same device. It runs eagerly and is converted to channels_last.
        accelerated: made from it, by the images per call that it was made for.
        verbs: methods of both: encode, decode, reconstruct.
        seconds: per cell; at least two turns of each module, of five timed calls, are done.

    Raises:
        FastvaeError: the error of the accelerated results is above the limit, or a batch does not fit into memory.
    """
    vae = vae.to(memory_format=torch.channels_last)
    for verb in verbs:
        for batch, fast in accelerated.items():
            try:
                yield _measure(vae, fast, verb, batch, seconds)
            except (RuntimeError, MemoryError) as error:
                if not isinstance(error, MemoryError) and "memory" not in str(error).lower():
                    raise
                raise FastvaeError(f"{verb} of {batch} does not fit into memory: measure smaller batches") from error


def _measure(vae: VAE, accelerated: AcceleratedVAE, verb: str, batch: int, seconds: float) -> Cell:
    x = _input(verb, batch, vae, accelerated.device)
    calls = {"accelerated": _call(accelerated, verb, x), "plain": _call(vae, verb, x)}
    error, bound = largest_error(calls["accelerated"](), calls["plain"]()), BOUNDS[accelerated.dtype]
    if not error <= bound:
        raise FastvaeError(
            f"{verb} of {batch}: results must be within {bound:g} of the plain ones; they are {error:.2g} off"
        )
    samples = _in_turns(calls, seconds)
    return Cell(verb, batch, latency(samples["accelerated"], batch), latency(samples["plain"], batch), error)


def _input(verb: str, batch: int, vae: VAE, device: torch.device) -> Tensor:
    generator = torch.Generator().manual_seed(batch)
    if verb == "decode":
        return torch.randn(batch, vae.latent, generator=generator).to(device)
    images = torch.rand(batch, 3, vae.image_size, vae.image_size, generator=generator) * 2 - 1
    return images.to(device).contiguous(memory_format=torch.channels_last)


def _call(model: VAE | AcceleratedVAE, verb: str, x: Tensor) -> Callable[[], list[Tensor]]:
    run = getattr(model, verb)

    def call() -> list[Tensor]:
        with torch.inference_mode():
            result = run(x)
        if x.is_cuda:
            torch.cuda.synchronize()  # latency includes waiting for the results
        return list(result) if isinstance(result, tuple) else [result]

    return call


def _in_turns(calls: dict[str, Callable[[], list[Tensor]]], seconds: float) -> dict[str, list[float]]:
    samples: dict[str, list[float]] = {name: [] for name in calls}
    until, turns = time.perf_counter() + seconds, 0
    while turns < 2 or time.perf_counter() < until:
        for name, call in calls.items():
            for i in range(_UNTIMED + _TIMED):
                start = time.perf_counter()
                call()
                if i >= _UNTIMED:
                    samples[name].append(time.perf_counter() - start)
        turns += 1
    return samples
