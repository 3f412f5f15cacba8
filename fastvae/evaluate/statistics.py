"""Inception statistics of a set of images; those of real images are cached, since they do not change."""

import hashlib
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from fastvae.data.packed import PackedImages
from fastvae.errors import FastvaeError
from fastvae.evaluate.frechet import Gaussian, Moments
from fastvae.evaluate.inception import Inception
from fastvae.evaluate.inception_score import inception_score
from fastvae.files.atomic_write import atomic_file
from fastvae.files.cache import cache_folder, kept_file
from fastvae.files.reading import open_regular
from fastvae.progress_bar import progress_bar

BATCH = 32
# Of the cached files: to be raised when the network's input or the statistics are computed differently.
_VERSION = 3
_logger = logging.getLogger("fastvae")


@dataclass(frozen=True)
class Statistics:
    """Inception statistics of a set of images.

    Attributes:
        features: the normal distribution of their features.
        score: mean and standard deviation of the Inception Score; None if the network has no classifier.
    """

    features: Gaussian
    score: tuple[float, float] | None


def statistics(
    network: Inception, batches: Iterable[np.ndarray], count: int, label: str, *, order: np.ndarray | None = None
) -> Statistics:
    """Passes images through the network.

    Args:
        network: on its device.
        batches: uint8 [B, H, W, 3] each.
        count: images in all.
        label: of the progress bar on standard error.
        order: int64 [count], in which the Inception Score, whose parts are consecutive, takes them; None: as given.
    """
    moments, probabilities = Moments(), []
    with progress_bar(what=label, total=count, unit=" images", leave=False) as bar:
        for batch in batches:
            features, classes = network(batch)
            moments.add(features)
            if classes is not None:
                probabilities.append(classes)
            bar.update(len(batch))
    if not probabilities:
        return Statistics(moments.gaussian(), None)
    of_all = np.concatenate(probabilities)
    return Statistics(moments.gaussian(), inception_score(of_all if order is None else of_all[order]))


def real_statistics(network: Inception, packed: PackedImages, indices: np.ndarray, label: str) -> Statistics:
    """The same for images of a data set; read from the cache if this network has seen the same images before."""
    name = f"inception/{_key(network, packed, indices)}.npz"
    if (kept := kept_file(name)) is not None:
        try:
            return _read(kept, len(indices))
        except Exception:  # readers of damaged files may raise anything
            _logger.warning("%s is damaged and will be computed again", kept)
    batches = (packed.images[indices[start : start + BATCH]] for start in range(0, len(indices), BATCH))
    # Data sets lie class by class, and each part of the score should have all classes, as generated images have.
    order = np.random.default_rng(0).permutation(len(indices))
    result = statistics(network, batches, len(indices), label, order=order)
    try:
        with atomic_file(cache_folder() / name) as temporary, temporary.open("wb") as file:
            of = result.features
            np.savez(file, count=of.count, mean=of.mean, covariance=of.covariance, score=np.array(result.score or ()))
    except FastvaeError as error:  # only the next evaluation takes longer
        _logger.warning("the Inception statistics of the real images cannot be cached: %s (FASTVAE_CACHE)", error)
    return result


def _key(network: Inception, packed: PackedImages, indices: np.ndarray) -> str:
    """A digest of all that the statistics depend on: the network, what runs it, the images, and which of them."""
    images = packed.header["blocks"]["images"]["sha256"]
    parts = [_VERSION, network.digest, network.device.type, torch.__version__, images, np.shape(packed.images)[1:]]
    digest = hashlib.sha256(" ".join(map(str, parts)).encode())
    digest.update(np.ascontiguousarray(indices, "<i8").tobytes())
    return digest.hexdigest()[:24]


def _read(path: Path, count: int) -> Statistics:
    """What `real_statistics` wrote.

    Raises:
        Exception: the file is damaged.
    """
    with open_regular(path) as file, np.load(file, allow_pickle=False) as kept:
        mean, covariance, score = (kept[name] for name in ("mean", "covariance", "score"))
        matches = int(kept["count"]) == count and mean.ndim == 1 and covariance.shape == 2 * mean.shape
    finite = all(np.isfinite(part).all() for part in (mean, covariance, score))
    if not (matches and finite and score.shape in ((0,), (2,))):
        raise ValueError(f"{path} holds other statistics")
    return Statistics(Gaussian(count, mean, covariance), tuple(score.tolist()) or None)
