"""What the Inception network says of a set of images; of real images it is kept, since they do not change."""

import hashlib
import logging
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from fastvae.cache import cache_folder
from fastvae.data.packed import PackedImages
from fastvae.errors import FastvaeError
from fastvae.evaluate.frechet import Gaussian, Moments
from fastvae.evaluate.inception import Inception
from fastvae.evaluate.inception_score import inception_score
from fastvae.progress_bar import progress_bar
from fastvae.whole_file import whole_file

BATCH = 32
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
    checksum = f"{network.digest} {packed.header['blocks']['images']['sha256']} ".encode()
    key = hashlib.sha256(checksum + np.ascontiguousarray(indices, "<i8").tobytes()).hexdigest()[:24]
    path = cache_folder() / "inception" / f"{key}.npz"
    if path.exists():
        try:
            with np.load(path) as kept:
                features = Gaussian(int(kept["count"]), kept["mean"], kept["covariance"])
                return Statistics(features, tuple(kept["score"].tolist()) or None)
        except (OSError, KeyError, ValueError, zipfile.BadZipFile):
            path.unlink(missing_ok=True)  # damaged, and only a copy
    batches = (packed.images[indices[start : start + BATCH]] for start in range(0, len(indices), BATCH))
    found = statistics(network, batches, len(indices), words)
    try:
        with whole_file(path) as temporary, temporary.open("wb") as file:
            of = found.features
            np.savez(file, count=of.count, mean=of.mean, covariance=of.covariance, score=np.array(found.score or ()))
    except FastvaeError as error:  # costs the next evaluation its time, and this one nothing
        _logger.warning("what Inception says of the real images is not kept: %s (FASTVAE_CACHE)", error)
    return found
