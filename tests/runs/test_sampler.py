"""Runs that draw images: VAEs and GANs."""

import numpy as np
import pytest
import torch

import fastvae
from fastvae.cli import main
from fastvae.errors import FastvaeError
from fastvae.pictures import to_pixels
from fastvae.runs.sampler import draw_samples, load_sampler


@pytest.fixture(scope="module")
def gan(packed, tmp_path_factory):
    folder = tmp_path_factory.mktemp("gan") / "run"
    flags = ["--width", "2", "--latent", "4", "--batch-size", "8", "--steps", "2"]
    flags += ["--precision", "fp32", "--device", "cpu"]
    assert main(["train", "cifar10-dcgan", "--data", str(packed.path), "--out", str(folder), *flags]) == 0
    return folder


def test_a_vae_is_what_load_gives(run):
    first, second = load_sampler(run), fastvae.load(run)
    images = [vae.sample(3, generator=torch.Generator().manual_seed(5)) for vae in (first, second)]
    assert torch.equal(*images)


def test_a_gan_draws_what_its_generator_makes_of_the_prior(gan):
    sampler = load_sampler(gan)
    assert (sampler.image_size, sampler.latent) == (32, 4) and not sampler.training
    z = torch.randn(3, 4, generator=torch.Generator().manual_seed(5))
    assert torch.equal(sampler.sample(3, generator=torch.Generator().manual_seed(5)), sampler(z))
    assert (
        sampler.run.losses["generator"] > 0
        and sampler.run.step == 2
        and sampler.run.config["recipe"] == "cifar10-dcgan"
    )


def test_a_gan_is_no_vae(gan):
    with pytest.raises(FastvaeError, match="is a GAN, which has no encoder: `fastvae generate`"):
        fastvae.load(gan)


def test_nothing_else_in_its_folder_is_taken_for_it(gan):
    with pytest.raises(FastvaeError, match="has no view 'nothere': it is of one model; leave it out"):
        load_sampler(gan / "nothere")


@pytest.mark.parametrize("count", [1, 63, 64, 65, 200])
def test_samples_in_pieces_are_those_of_one_batch(run, count):
    vae = fastvae.load(run)
    with torch.inference_mode():
        expected = to_pixels(vae.sample(count, generator=torch.Generator().manual_seed(5)))
    pieces = list(draw_samples(vae, count, 5))
    assert max(map(len, pieces)) <= 64
    found = np.concatenate(pieces)
    assert found.shape == expected.shape
    # Kernels sum in another order for another batch, which may move a value over the edge between two levels.
    assert np.abs(found.astype(int) - expected).max() <= 1 and (found != expected).mean() < 0.01
