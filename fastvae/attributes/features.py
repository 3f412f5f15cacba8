"""Features of images: the latent vectors of several VAEs, concatenated, and features of other networks."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from fastvae.errors import UsageError
from fastvae.hub.locate import Weights
from fastvae.inference.encode_images import encode_images
from fastvae.runs.sampler import load_views

_BATCH = 256


@dataclass(frozen=True)
class FeatureSource:
    """A network that extracts features of images.

    Attributes:
        name: human-readable.
        count: of features.
        image_size: pixels per side of its input images; None for any.
        model: the step that the run's model is of, and whether its weights are the average; empty if unknown.
        encode: (images uint8 [N, H, W, 3], indices int64 [n], label of the progress bar) -> float32 [n, count].
    """

    name: str
    count: int
    image_size: int | None
    encode: Callable[[np.ndarray, np.ndarray, str], np.ndarray]
    model: dict[str, int | str | None] = field(default_factory=dict)


def latent_sources(run: str | Path, device: torch.device, weights: Weights = "auto") -> list[FeatureSource]:
    """The means of q(z|x) by the VAE of a run, or by each view of a multi-view run; accelerated, in float32.

    Raises:
        FastvaeError: the run cannot be read.
    """
    sources = []
    for name, vae in load_views(run, device=device.type, weights=weights).items():
        fast = vae.accelerate(torch.float32, batch_sizes=(_BATCH,), device=device)
        sources.append(
            FeatureSource(
                name,
                vae.latent,
                vae.image_size,
                lambda images, indices, label, fast=fast: encode_images(fast, images, indices, progress=label),
                {} if vae.run is None else {"step": vae.run.step, "weights": vae.run.weights},
            )
        )
    return sources


def common_size(sources: Sequence[FeatureSource]) -> int | None:
    """The image size that all sources take; None if any will do.

    Raises:
        UsageError: they take different sizes.
    """
    sizes = {source.image_size: source.name for source in sources if source.image_size is not None}
    if len(sizes) > 1:
        listed = ", ".join(f"{name} {size}x{size}" for size, name in sizes.items())
        raise UsageError(f"the runs take images of different sizes ({listed}); give runs of one size")
    return next(iter(sizes), None)


def collect(sources: Sequence[FeatureSource], images: np.ndarray, indices: np.ndarray) -> np.ndarray:
    """The features of all sources, concatenated, with a progress bar for each.

    Args:
        sources: one or more.
        images: uint8 [N, H, W, 3]; may be a memory map.
        indices: int64 [n], which of them.

    Returns:
        float32 [n, the sum of the counts].
    """
    features = np.empty((len(indices), sum(source.count for source in sources)), np.float32)
    start = 0
    for source in sources:
        features[:, start : start + source.count] = source.encode(images, indices, source.name)
        start += source.count
    return features
