"""A tiny data set with attributes, and tiny models."""

import numpy as np
import pytest
import torch

import fastvae
from fastvae.data.packed import PackedImages, PackedWriter
from fastvae.runs.open import open_vae
from tests.conftest import blobs


@pytest.fixture(scope="session")
def faces(tmp_path_factory) -> PackedImages:
    """60 images of 32x32, 40 to train on, 20 held out; attributes: Smiling by halves, Bright, Rare never, Always."""
    path = tmp_path_factory.mktemp("faces") / "faces.fvae"
    with PackedWriter(path, image_size=32, attribute_names=["Always", "Bright", "Smiling", "Rare"]) as writer:
        images, i = blobs(60, 32), np.arange(60)
        attributes = np.stack([i >= 0, images.mean((1, 2, 3)) > 50, i % 2 == 0, i == 300], 1).astype(np.uint8)
        writer.append(images, splits=(i >= 40).astype(np.uint8), attributes=attributes)
    return PackedImages.open(path)


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """Two VAEs of one latent size, whose decoders differ."""
    folders = []
    for i in range(2):
        torch.manual_seed(i)
        vae = fastvae.VAE(32, width=2, latent=4)
        with torch.no_grad():  # at its start a decoder says nearly the same of every z
            vae.decoder.linear.weight.mul_(20)
        folders.append(tmp_path_factory.mktemp("models") / f"model-{i}")
        vae.eval().save_pretrained(folders[-1])
    return folders


@pytest.fixture
def vae(models):
    return open_vae(models[0]).model
