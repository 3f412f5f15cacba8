"""Folding is exact: in float64 nothing is lost but the last digits."""

import copy

import pytest
import torch
from torch import nn

from fastvae.inference.fold import FoldedDecoder, FoldedEncoder, FoldedReconstruction
from fastvae.models import VAE


@pytest.fixture(scope="module")
def vae() -> VAE:
    """With statistics, scales and shifts as after some training."""
    torch.manual_seed(0)
    vae = VAE(32, width=4, latent=6).double().train()
    with torch.no_grad():
        for module in vae.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(-1.5, 1.5)
                module.bias.uniform_(-0.5, 0.5)
        for _ in range(5):
            vae.reconstruct(torch.rand(8, 3, 32, 32, dtype=torch.float64) * 2 - 1)
    return vae.eval()


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.rand(3, 3, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.mark.parametrize("kernels", [False, True], ids=["torch", "kernels"])
def test_folding_is_exact(vae, images, kernels):
    encoder, decoder = FoldedEncoder(vae, kernels=kernels), FoldedDecoder(vae, kernels=kernels)
    with torch.no_grad():
        mean, log_variance = vae.encode(images)
        pairs = [
            (encoder(images)[0], mean),
            (encoder(images)[1], log_variance),
            (decoder(mean), vae.decode(mean)),
            (FoldedReconstruction(encoder, decoder)(images), vae.reconstruct(images)),
        ]
    for found, expected in pairs:
        assert (found - expected).abs().max() <= 1e-13 * expected.abs().max()


def test_the_statistics_matter(vae, images):
    """Without them the comparison above would hold for a fold that forgets them."""
    other = copy.deepcopy(vae)
    for module in other.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_var.mul_(1.01)
    with torch.no_grad():
        off = (FoldedEncoder(other)(images)[0] - vae.encode(images)[0]).abs().max()
    assert off > 1e-4


def test_no_parameter_and_nothing_shared(vae):
    for part in (FoldedEncoder(vae), FoldedDecoder(vae)):
        assert not any(p.requires_grad for p in part.parameters())
        theirs = {t.data_ptr() for t in (*vae.parameters(), *vae.buffers())}
        assert not theirs & {t.data_ptr() for t in (*part.parameters(), *part.buffers())}
        assert not any(isinstance(module, nn.BatchNorm2d) for module in part.modules())
