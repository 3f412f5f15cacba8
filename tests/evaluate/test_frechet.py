"""The Fréchet distance against closed forms and against scipy's root of a matrix."""

import numpy as np
import pytest

from fastvae.errors import FastvaeError
from fastvae.evaluate.frechet import Gaussian, Moments, frechet_distance


def gaussian(mean, covariance) -> Gaussian:
    return Gaussian(100, np.asarray(mean, np.float64), np.asarray(covariance, np.float64))


def fitted(count: int, size: int, seed: int, scale: float = 1.0) -> Gaussian:
    random = np.random.default_rng(seed)
    mixing = np.random.default_rng(99).normal(size=(size, size))
    moments = Moments()
    for part in np.array_split((random.normal(size=(count, size)) * scale + 3) @ mixing, 3):
        moments.add(part.astype(np.float32))
    return moments.gaussian()


def test_one_dimension_by_hand():
    # N(1, 4) and N(4, 9): (1 - 4)^2 + (2 - 3)^2
    assert frechet_distance(gaussian([1], [[4]]), gaussian([4], [[9]])) == pytest.approx(10, abs=1e-12)


def test_diagonal_covariances_with_zeros():
    a, b = np.array([4, 0, 1, 0, 2.25]), np.array([1, 9, 0, 0, 2.25])
    expected = 25 + np.square(np.sqrt(a) - np.sqrt(b)).sum()  # = 25 + 1 + 9 + 1
    found = frechet_distance(gaussian([0] * 5, np.diag(a)), gaussian([3, 4, 0, 0, 0], np.diag(b)))
    assert expected == 36 and found == pytest.approx(expected, abs=1e-9)


def test_rotation_leaves_it_as_it_is():
    random = np.random.default_rng(0)
    turn = np.linalg.qr(random.normal(size=(6, 6)))[0]
    a, b = np.array([4, 0, 1, 0, 2, 5.0]), np.array([1, 9, 0, 0, 2, 3.0])
    found = frechet_distance(
        gaussian([0] * 6, turn @ np.diag(a) @ turn.T), gaussian([0] * 6, turn @ np.diag(b) @ turn.T)
    )
    assert found == pytest.approx(np.square(np.sqrt(a) - np.sqrt(b)).sum(), abs=1e-6)


def test_against_scipys_root():
    linalg = pytest.importorskip("scipy.linalg")
    a, b = fitted(300, 40, 0), fitted(400, 40, 1, scale=1.5)
    root = linalg.sqrtm(a.covariance @ b.covariance)
    expected = np.square(a.mean - b.mean).sum() + np.trace(a.covariance + b.covariance - 2 * root.real)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(b, a) == pytest.approx(expected, rel=1e-9)


def test_fewer_images_than_features():
    """20 and 30 images of 64 features: both covariances are singular, as they are with 2,000 of 2,048."""
    a, b = fitted(20, 64, 0), fitted(30, 64, 1)
    assert a.factor.shape == (64, 19) and b.factor.shape == (64, 29)
    # The trace of the root is the nuclear norm of R_a^T R_b, whatever the factors: here from the centred features.
    nuclear = np.linalg.svd(a.factor.T @ b.factor, compute_uv=False).sum()
    expected = np.square(a.mean - b.mean).sum() + np.trace(a.covariance) + np.trace(b.covariance) - 2 * nuclear
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(a, a) <= 1e-9 * np.trace(a.covariance)


def test_singular_covariances_against_scipy_with_the_usual_offset():
    linalg = pytest.importorskip("scipy.linalg")
    a, b = fitted(20, 64, 0), fitted(30, 64, 1)
    offset = 1e-6 * np.eye(64)  # what published code adds so that sqrtm does not fail
    root = linalg.sqrtm((a.covariance + offset) @ (b.covariance + offset)).real
    expected = np.square(a.mean - b.mean).sum() + np.trace(a.covariance + b.covariance - 2 * root)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-3)


def test_moments_are_numpys_even_far_from_zero():
    features = np.random.default_rng(0).normal(1e4, 1, (50, 5))
    moments = Moments()
    for part in np.array_split(features, 4):
        moments.add(part)
    found = moments.gaussian()
    assert found.count == 50
    np.testing.assert_allclose(found.mean, features.mean(0), rtol=1e-13)
    np.testing.assert_allclose(found.covariance, np.cov(features, rowvar=False), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_features_that_are_not_finite_are_refused(value):
    features = np.ones((3, 4), np.float32)
    features[1, 2] = value
    with pytest.raises(FastvaeError, match="NaN or infinity"):
        Moments().add(features)
