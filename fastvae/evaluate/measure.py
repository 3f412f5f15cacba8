"""Computes all metrics of every run."""

import functools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from fastvae.data.packed import PackedImages
from fastvae.evaluate.frechet import frechet_distance
from fastvae.evaluate.inception import Inception
from fastvae.evaluate.protocol import Protocol
from fastvae.evaluate.reconstruction import closeness, reconstructions
from fastvae.evaluate.statistics import BATCH, Statistics, real_statistics, statistics
from fastvae.lossnet import LossNetwork
from fastvae.pictures import finite_pixels
from fastvae.runs.open import Run
from fastvae.runs.sampler import Sampler

FLOOR = "real images"


@dataclass(frozen=True)
class Row:
    """The metrics of a run, or of real images; None for what cannot be measured.

    Attributes:
        samples: how many images the score and FID are computed from.
        inception_score: mean over ten parts of the samples.
        inception_score_std: over the same parts.
        fid: of the samples.
        images: how many were reconstructed.
        psnr_db, ssim, rec: as `reconstruction.Closeness` has them.
        reconstruction_fid: of the reconstructions against their originals.
    """

    name: str
    samples: int
    inception_score: float | None = None
    inception_score_std: float | None = None
    fid: float | None = None
    images: int = 0
    psnr_db: float | None = None
    ssim: float | None = None
    rec: float | None = None
    reconstruction_fid: float | None = None


def measure(
    runs: list[Run],
    packed: PackedImages,
    protocol: Protocol,
    inception: Inception | None,
    loss_network: LossNetwork | None,
    *,
    seed: int,
    reconstruction_fid: bool,
) -> Iterator[Row]:
    """The row of real images first, if it is wanted and there is an Inception network; then the runs.

    Args:
        runs: models of the data set's image size.
        packed: the data set.
        protocol: made by `protocol.plan` for it.
        inception: None to skip the Inception Score and FID.
        loss_network: None to skip the feature distance.
        seed: of the draws from the prior, the same for every run.
        reconstruction_fid: whether to compute the FID of the reconstructions, too.

    Raises:
        FastvaeError: scikit-image is not installed, or the cache cannot be written.
    """

    # Once, though the cache may be one that cannot be written: a protocol may use the same images twice.
    @functools.cache
    def real(which: str) -> Statistics:
        return real_statistics(inception, packed, getattr(protocol, which), FLOOR if which == "floor" else which)

    reference = None if inception is None else real("reference")
    if inception is not None and protocol.floor is not None:
        yield Row(FLOOR, len(protocol.floor), **_of_samples(real("floor"), reference))
    for run in runs:
        metrics = {"samples": 0}
        if inception is not None:
            batches = _samples(run.model, protocol.count, seed)
            drawn = statistics(inception, batches, protocol.count, f"{run.name}, samples")
            metrics = {"samples": protocol.count, **_of_samples(drawn, reference)}
        if run.vae is not None:
            close = closeness(run.vae, packed.images, protocol.held_out, loss_network, f"{run.name}, reconstructions")
            metrics |= {"images": len(protocol.held_out), **vars(close)}
            if inception is not None and reconstruction_fid:
                pairs = reconstructions(run.vae, packed.images, protocol.held_out)
                batches = (finite_pixels(fakes) for _, fakes in pairs)
                label = f"{run.name}, FID of reconstructions"
                remade = statistics(inception, batches, len(protocol.held_out), label)
                originals = next(
                    w for w in ("reference", "floor", "held_out") if getattr(protocol, w) is protocol.held_out
                )
                metrics["reconstruction_fid"] = frechet_distance(real(originals).features, remade.features)
        yield Row(run.name, **metrics)


def _of_samples(drawn: Statistics, reference: Statistics) -> dict[str, float | None]:
    mean, std = drawn.score or (None, None)
    fid = frechet_distance(reference.features, drawn.features)
    return {"inception_score": mean, "inception_score_std": std, "fid": fid}


def _samples(sampler: Sampler, count: int, seed: int) -> Iterator[np.ndarray]:
    """Batches uint8 [B, H, W, 3], reproducible from the seed."""
    device = next(sampler.parameters()).device
    generator = torch.Generator(device).manual_seed(seed)
    for start in range(0, count, BATCH):
        with torch.inference_mode():
            images = sampler.sample(min(BATCH, count - start), generator=generator)
        yield finite_pixels(images)
