"""Directions of attributes, and the means that they are made from, against doing it image by image."""

import numpy as np
import pytest
import torch

from fastvae import VAE
from fastvae.data.packed import PackedImages, PackedWriter
from fastvae.errors import FastvaeError, UsageError
from fastvae.inference.attribute_vectors import attribute_vectors
from fastvae.inference.encode_images import encode_images
from tests.conftest import blobs


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> PackedImages:
    """40 pictures with three attributes, of which one is never there."""
    path = tmp_path_factory.mktemp("attributes") / "blobs.fvae"
    attributes = np.stack([np.arange(40) % 4 == 0, np.arange(40) % 2, np.zeros(40)], 1).astype(np.uint8)
    with PackedWriter(path, image_size=16, attribute_names=("Round", "Red", "Square")) as writer:
        writer.append(blobs(40, 16), splits=(np.arange(40) >= 32).astype(np.uint8), attributes=attributes)
    return PackedImages.open(path)


@pytest.fixture(scope="module")
def vae() -> VAE:
    torch.manual_seed(1)
    return VAE(16, 2, 5).eval()


def means_one_by_one(vae, pixels):
    with torch.no_grad():
        return torch.cat(
            [vae.encode(torch.from_numpy(p.copy()).permute(2, 0, 1)[None] / 127.5 - 1)[0] for p in pixels]
        ).numpy()


def test_means_come_in_the_order_asked_for(vae, images):
    wanted = np.array([7, 3, 30])
    found = encode_images(vae, images.images, wanted)
    assert found.dtype == np.float32 and np.allclose(found, means_one_by_one(vae, images.images[wanted]), atol=1e-5)
    assert len(encode_images(vae, images.images)) == 40
    assert encode_images(vae, images.images, np.empty(0, np.int64)).shape == (0, 5)
    assert np.allclose(encode_images(vae.accelerate(), images.images, wanted), found, atol=1e-5)


def test_a_direction_is_a_difference_of_means_over_training_images(vae, images):
    means = means_one_by_one(vae, images.images[:32])
    has = images.attributes[:32] == 1
    for vector, column in zip(attribute_vectors(vae, images, ["Round", "Red"]), (0, 1), strict=True):
        by_hand = means[has[:, column]].mean(0) - means[~has[:, column]].mean(0)
        assert np.allclose(vector.direction, by_hand, atol=1e-5)
        assert (vector.with_it, vector.without_it) == (has[:, column].sum(), (~has[:, column]).sum())


def test_no_more_images_than_asked_for_and_the_same_ones_by_seed(vae, images):
    first, again, other = (attribute_vectors(vae, images, ["Red"], limit=4, seed=seed)[0] for seed in (0, 0, 1))
    assert (first.with_it, first.without_it) == (4, 4)
    assert np.array_equal(first.direction, again.direction) and not np.array_equal(first.direction, other.direction)


def test_what_has_no_direction_is_said(vae, images, packed):
    with pytest.raises(UsageError, match="no attribute 'Rad', did you mean 'Red'"):
        attribute_vectors(vae, images, ["Rad"])
    with pytest.raises(FastvaeError, match="every training image or none has the attribute Square"):
        attribute_vectors(vae, images, ["Square"])
    with pytest.raises(FastvaeError, match="has no attributes"):
        attribute_vectors(vae, packed, ["Red"])
