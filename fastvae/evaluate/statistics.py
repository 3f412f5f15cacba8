"""What the Inception network says of a set of images; of real images it is kept, since they do not change."""

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
# Of what is kept: another one where the network's input or the statistics are computed in another way.
_VERSION = 2
_logger = logging.getLogger("fastvae")


@dataclass(frozen=True)
class Statistics:
    """Of a set of images.

    Attributes:
        features: the normal distribution of their features.
        score: mean and standard deviation of the Inception Score; None if the network has no classifier.
    """

    features: Gaussian
    score: tuple[float, float] | None


def statistics(network: Inception, batches: Iterable[np.ndarray], count: int, words: str) -> Statistics:
    """Passes images through the network.

    Args:
        network: on its device.
        batches: uint8 [B, H, W, 3] each.
        count: images in all.
        words: shown before a bar on standard error.
    """
    moments, probabilities = Moments(), []
    with progress_bar(what=words, total=count, unit=" images", leave=False) as bar:
        for batch in batches:
            features, classes = network(batch)
            moments.add(features)
            if classes is not None:
                probabilities.append(classes)
            bar.update(len(batch))
    return Statistics(moments.gaussian(), inception_score(np.concatenate(probabilities)) if probabilities else None)


def real_statistics(network: Inception, packed: PackedImages, indices: np.ndarray, words: str) -> Statistics:
    """The same of images of a data set, read from the cache folder if they were passed before, by the same network."""
    name = f"inception/{_key(network, packed, indices)}.npz"
    if (kept := kept_file(name)) is not None:
        try:
            return _read(kept, len(indices))
        except Exception:  # what readers raise on damaged files is open-ended
            _logger.warning("%s is damaged: it is made again", kept)
    batches = (packed.images[indices[start : start + BATCH]] for start in range(0, len(indices), BATCH))
    found = statistics(network, batches, len(indices), words)
    try:
        with atomic_file(cache_folder() / name) as temporary, temporary.open("wb") as file:
            of = found.features
            np.savez(file, count=of.count, mean=of.mean, covariance=of.covariance, score=np.array(found.score or ()))
    except FastvaeError as error:  # costs the next evaluation its time, and this one nothing
        _logger.warning("what Inception says of the real images is not kept: %s (FASTVAE_CACHE)", error)
    return found


def _key(network: Inception, packed: PackedImages, indices: np.ndarray) -> str:
    """Of all that the statistics depend on: the network, what runs it, the images, and which of them."""
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
        right = int(kept["count"]) == count and mean.ndim == 1 and covariance.shape == 2 * mean.shape
    finite = all(np.isfinite(part).all() for part in (mean, covariance, score))
    if not (right and finite and score.shape in ((0,), (2,))):
        raise ValueError(f"{path} holds other statistics")
    return Statistics(Gaussian(count, mean, covariance), tuple(score.tolist()) or None)
