"""The numbers that an evaluation reports, on reconstructions that are known."""

import numpy as np
import pytest
import torch

from fastvae.models.at_once import at_once
from fastvae.pictures import to_images
from fastvae.train import held_out
from fastvae.train.held_out import evaluate
from fastvae.train.step import Step
from tests.conftest import blobs


class Known:
    """An objective that reconstructs by a given function."""

    loss_network, networks = None, {}

    def __init__(self, reconstruct):
        self.reconstruct = reconstruct
        self.modes = []

    def train(self, mode=True):
        self.modes.append(mode)


def run(reconstruct, pixels):
    objective = Known(reconstruct)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(held_out, "at_once", lambda _: 3)  # images a pass
        found = evaluate(objective, Step(objective, {}, device=torch.device("cpu")), pixels)
    assert objective.modes == [False, True]
    return found


def test_large_images_pass_in_smaller_batches():
    assert [at_once(size) for size in (32, 64, 128, 256, 512, 1024)] == [64, 64, 64, 16, 4, 1]


def test_psnr_of_a_known_error():
    pixels = np.full((7, 16, 16, 3), 100, np.uint8)
    found = run(lambda images: images + 10 / 127.5, pixels)
    assert found["psnr_db"] == pytest.approx(10 * np.log10(255**2 / 100), rel=1e-5)


def test_sharpness_of_copies_and_of_blur():
    pixels = blobs(7, 16)
    assert run(lambda images: images, pixels)["sharpness"] == pytest.approx(1)
    blurred = run(lambda images: (images + images.roll(1, 2) + images.roll(1, 3)) / 3, pixels)["sharpness"]
    assert blurred < 0.95
    assert run(lambda images: images * 0, pixels)["sharpness"] == 0


def test_a_system_that_does_not_reconstruct():
    assert run(lambda images: None, blobs(3, 16)) == {}


def test_pixels_become_images_and_keep_their_order():
    pixels = torch.tensor([0, 255, 51], dtype=torch.uint8).reshape(1, 1, 1, 3)
    assert torch.allclose(to_images(pixels).flatten(), torch.tensor([-1.0, 1.0, -0.6]), atol=1e-6)
