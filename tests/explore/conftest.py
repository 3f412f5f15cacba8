"""A server on the smallest run, with sliders for a data set of discs."""

import threading

import numpy as np
import pytest

import fastvae
from fastvae.data.packed import PackedImages, PackedWriter
from fastvae.explore.explorer import Explorer
from fastvae.explore.server import Server
from fastvae.explore.sliders import make_sliders
from tests.conftest import blobs

NAMES = ("Young", "Smiling", "Blurry", "Bald", "Male")


@pytest.fixture(scope="session")
def faces(tmp_path_factory) -> PackedImages:
    """40 images of 32x32 with attributes: Smiling if red is bright, Male if the disc is high, all Young, none Bald."""
    path = tmp_path_factory.mktemp("faces") / "faces.fvae"
    images = blobs(40, 32)
    smiling = images[..., 0].max((1, 2)) > 180
    male = images[:, :16].mean((1, 2, 3)) > images[:, 16:].mean((1, 2, 3))
    blurry = np.arange(40) % 2
    columns = (np.ones(40), smiling, blurry, np.zeros(40), male)
    with PackedWriter(path, image_size=32, attribute_names=NAMES) as writer:
        writer.append(images, splits=np.zeros(40, np.uint8), attributes=np.stack(columns, 1).astype(np.uint8))
    return PackedImages.open(path)


@pytest.fixture(scope="session")
def vae(run):
    return fastvae.load(run)


@pytest.fixture(scope="session")
def sliders(vae, faces):
    return make_sliders(vae.accelerate(), str(faces.path), (), trained_on=None)


@pytest.fixture(scope="session")
def server(vae, sliders):
    with Server("127.0.0.1", 0) as server:
        server.explorer = Explorer(vae.accelerate(), sliders, "run")
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()
