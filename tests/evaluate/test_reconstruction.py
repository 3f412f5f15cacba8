"""PSNR, SSIM and L_rec against their definitions, written out."""

import numpy as np
import pytest
import torch

import fastvae
from fastvae.errors import FastvaeError
from fastvae.evaluate.measure import _samples
from fastvae.evaluate.reconstruction import closeness
from fastvae.kernels.feature_loss import feature_loss_ref, paper_weights
from fastvae.lossnet import load_loss_network
from tests.conftest import blobs

pytest.importorskip("skimage")


class Darker(fastvae.VAE):
    """Reconstructs every image darker by four steps of 255."""

    def reconstruct(self, images):
        return images - 8 / 255


@pytest.fixture
def vae():
    return Darker(32, width=2, latent=4).eval()


def ssim_by_hand(a: np.ndarray, b: np.ndarray) -> float:
    """Wang et al. 2004 of one channel: an 11x11 Gaussian window, where it lies inside the image."""
    side = np.exp(-np.square(np.arange(-5, 6)) / (2 * 1.5**2))
    window = np.outer(side, side) / side.sum() ** 2
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    values = []
    for y in range(a.shape[0] - 10):
        for x in range(a.shape[1] - 10):
            p, q = a[y : y + 11, x : x + 11], b[y : y + 11, x : x + 11]
            mp, mq = (window * p).sum(), (window * q).sum()
            vp, vq, cov = (window * (u * v) for u, v in ((p, p), (q, q), (p, q)))
            vp, vq, cov = vp.sum() - mp**2, vq.sum() - mq**2, cov.sum() - mp * mq
            values.append((2 * mp * mq + c1) * (2 * cov + c2) / ((mp**2 + mq**2 + c1) * (vp + vq + c2)))
    return float(np.mean(values))


def test_against_the_definitions(vae):
    images = blobs(70, 32)
    network = load_loss_network("random", taps=("relu1_1", "relu2_1"))
    chosen = np.array([1, 4, 69])
    found = closeness(vae, images, chosen, network, "words")
    assert found.psnr_db == pytest.approx(20 * np.log10(255 / 4), abs=1e-3)  # blobs are 30 or brighter: none is clipped
    originals = images[chosen].astype(np.float64)
    by_hand = [ssim_by_hand(o[..., c], o[..., c] - 4) for o in originals for c in range(3)]
    assert found.ssim == pytest.approx(np.mean(by_hand), abs=1e-5)
    x = torch.from_numpy(originals).permute(0, 3, 1, 2).float() / 127.5 - 1
    expected = feature_loss_ref(network(x - 8 / 255), network(x), paper_weights((64, 128)))
    assert found.rec == pytest.approx(expected.item(), rel=1e-4)


def test_means_are_over_images_whatever_the_batches(vae):
    images = blobs(70, 32)
    network = load_loss_network("random", taps=("relu1_1",))
    one_by_one = [closeness(vae, images, np.array([i]), network, "words") for i in range(70)]
    found = closeness(vae, images, np.arange(70), network, "words")  # batches of 64 and 6
    for name in ("psnr_db", "ssim", "rec"):
        assert getattr(found, name) == pytest.approx(np.mean([getattr(c, name) for c in one_by_one]), rel=1e-4)


def test_pictures_of_nan_are_not_measured():
    vae = fastvae.VAE(32, width=2, latent=4).eval()
    vae.decoder.to_image.bias.data[0] = float("nan")
    with pytest.raises(FastvaeError, match="reconstructions contain NaN"):
        closeness(vae, blobs(2, 32), np.arange(2), None, "words")
    with pytest.raises(FastvaeError, match="images contain NaN"):
        next(_samples(vae, 3, 0))


def test_without_a_loss_network(vae):
    assert closeness(vae, blobs(2, 32), np.arange(2), None, "words").rec is None
