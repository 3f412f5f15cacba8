"""A run to publish."""

import pytest

from fastvae.cli import main


@pytest.fixture(scope="package")
def run(packed, tmp_path_factory):
    """Three steps of the smallest VAE."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    flags = ["--image-size", "32", "--width", "2", "--latent", "4", "--batch-size", "8", "--steps", "3"]
    assert main(["train", "celeba64-plain", "--data", str(packed.path), "--out", str(folder), *flags]) == 0
    return folder
