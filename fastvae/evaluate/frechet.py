"""The Fréchet distance of two normal distributions: FID, when they are fitted to Inception's features.

    d^2 = |m_1 - m_2|^2 + tr(C_1 + C_2 - 2 (C_1 C_2)^(1/2))          (Heusel et al. 2017, eq. 6)

With C_1 = R R^T the eigenvalues of C_1 C_2 that are not zero are those of the symmetric R^T C_2 R, so that the trace of
the root is the sum of their square roots. This avoids the root of a non-symmetric matrix, for which
`scipy.linalg.sqrtm` returns complex numbers or fails if covariances are singular, as they are with fewer images than
features.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from fastvae.errors import FastvaeError


@dataclass(frozen=True)
class Gaussian:
    """A normal distribution fitted to features.

    Attributes:
        count: features that it was fitted to.
        mean: float64 [D].
        covariance: float64 [D, D], the unbiased estimate (divided by count - 1).
    """

    count: int
    mean: np.ndarray
    covariance: np.ndarray

    @cached_property
    def factor(self) -> np.ndarray:
        """R float64 [D, rank] with covariance = R R^T."""
        values, vectors = np.linalg.eigh(self.covariance)
        # Smaller ones are rounding errors, whose roots would add up: sqrt(1e-16) is 1e-8, 2,048 times.
        kept = values > len(values) * np.finfo(np.float64).eps * max(values[-1], 0)
        return vectors[:, kept] * np.sqrt(values[kept])


class Moments:
    """Mean and covariance of features that come in batches, in float64."""

    def __init__(self) -> None:
        self.count = 0

    def add(self, features: np.ndarray) -> None:
        """Features [B, D].

        Raises:
            FastvaeError: one is not finite.
        """
        features = features.astype(np.float64)
        if not np.isfinite(features).all():
            raise FastvaeError("features contain NaN or infinity, so that no distance can be computed")
        if not self.count:
            # Any constant is correct; one near the mean keeps the products, whose difference is the covariance, small.
            self._shift = features.mean(0)
            self._sum, self._products = np.zeros(features.shape[1]), np.zeros((features.shape[1],) * 2)
        centred = features - self._shift
        self.count += len(features)
        self._sum += centred.sum(0)
        self._products += centred.T @ centred

    def gaussian(self) -> Gaussian:
        """The normal distribution of all features added so far, at least two."""
        mean = self._sum / self.count
        covariance = (self._products - self.count * np.outer(mean, mean)) / (self.count - 1)
        return Gaussian(self.count, mean + self._shift, covariance)


def frechet_distance(a: Gaussian, b: Gaussian) -> float:
    """d^2 of two distributions over the same features, >= 0. `a.factor` is cached, so pass the reference as `a`."""
    inner = np.linalg.eigvalsh(a.factor.T @ b.covariance @ a.factor)
    floor = len(inner) * np.finfo(np.float64).eps * max(inner.max(initial=0), 0)
    trace_of_root = np.sqrt(inner[inner > floor]).sum()
    squared = np.square(a.mean - b.mean).sum() + np.trace(a.covariance) + np.trace(b.covariance) - 2 * trace_of_root
    return max(float(squared), 0.0)
