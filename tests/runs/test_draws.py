"""Image k of a seed is a function of both alone."""

import itertools

import numpy as np
import pytest
import torch

import fastvae
from fastvae.runs.draws import numbered_images, numbered_latents


def test_never_changes():
    # Images that were drawn by an earlier version can be drawn again.
    z = numbered_latents(3, [0, 2**40], 3)
    assert z.dtype == torch.float32 and torch.allclose(
        z, torch.tensor([[-0.8012541, 0.7650476, -0.3408992], [0.1472452, 2.2779159, -0.4577544]]), rtol=0, atol=1e-6
    )


def test_a_number_has_the_same_draw_in_any_company():
    together = numbered_latents(5, range(10), 7)
    assert torch.equal(numbered_latents(5, [9, 2], 7), together[[9, 2]])
    assert torch.equal(numbered_latents(5, range(10), 4), together[:, :4])
    assert not torch.isclose(numbered_latents(6, range(10), 7), together, atol=1e-4).any()


def test_draws_are_standard_normal_and_independent():
    """400,000 numbers: means of powers within five standard deviations; so are products of neighbours."""
    z = numbered_latents(0, range(4000), 100).double()
    for power, mean, variance in [(1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)]:
        assert abs((z**power).mean() - mean) < 5 * (variance / z.numel()) ** 0.5
    for first, second in [(z[:, 1:], z[:, :-1]), (z[1:], z[:-1]), (z[:, :-1:2] ** 2 - 1, z[:, 1::2] ** 2 - 1)]:
        assert abs((first * second).mean()) < 5 * (first * second).std() / first.numel() ** 0.5
    assert z.abs().max() < 6


def test_an_image_is_the_same_to_the_bit_in_any_range():
    vae = fastvae.VAE(16, width=4, latent=5).eval()
    every = dict(numbered_images(vae, 1, range(50)))
    assert every[0].shape == (16, 16, 3) and every[0].dtype == np.uint8 and len(every) == 50
    for numbers in ([7], range(30, 35), [3, 17, 18, 49]):
        for number, image in numbered_images(vae, 1, numbers):
            assert np.array_equal(image, every[number])
    with torch.inference_mode():
        decoded = vae.decode(numbered_latents(1, [20], 5))[0]
    assert np.abs(((decoded + 1) * 127.5).permute(1, 2, 0).numpy() - every[20]).max() <= 0.51


def test_memory_does_not_depend_on_how_many():
    vae = fastvae.VAE(16, width=2, latent=2).eval()
    assert next(numbered_images(vae, 0, itertools.count(2**60)))[0] == 2**60


@pytest.mark.parametrize("latent", [1, 2, 3])
def test_odd_and_even_dimensions(latent):
    assert numbered_latents(0, [4], latent).shape == (1, latent)
