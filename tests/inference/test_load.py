"""`fastvae.load`: what comes back from a run, a checkpoint and a file."""

import numpy as np
import pytest
import torch
from PIL import Image

import fastvae
from fastvae.cli import main
from fastvae.train.checkpoint_files import latest
from fastvae.train.step import to_images


def test_load_from_run_checkpoint_and_file(run, packed):
    images = to_images(torch.from_numpy(np.array(packed.images[:3])))
    places = [run, str(latest(run)), latest(run) / "model.safetensors"]
    with torch.inference_mode():
        first, second, third = (fastvae.load(place).reconstruct(images) for place in places)
    assert torch.equal(first, second) and torch.equal(first, third)
    vae = fastvae.load(run)
    assert not vae.training
    assert (vae.image_size, vae.width, vae.latent) == (32, 2, 4)
    assert isinstance(vae, fastvae.VAE)


def test_a_checkpoint_accelerated(run, packed):
    vae, pixels = fastvae.load(run), np.array(packed.images[:3])
    with torch.no_grad():
        expected = vae.reconstruct(to_images(torch.from_numpy(pixels)))
    assert (vae.accelerate().reconstruct(pixels) - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_it_is_what_the_trainer_pictured(run, packed):
    """The loaded VAE draws the very reconstructions that the run wrote as a grid."""
    from fastvae.pictures import to_pixels

    held_out = np.asarray(packed.images[packed.held_out()])
    with torch.inference_mode():
        pixels = to_pixels(fastvae.load(run).reconstruct(to_images(torch.from_numpy(held_out))))
    with Image.open(run / "pictures" / "reconstructions-00000003.png") as sheet:
        drawn = np.asarray(sheet)
    assert np.abs(drawn[36:68, 2:34].astype(int) - pixels[0]).max() <= 3  # bfloat16 there, float32 here


def test_generate_and_reconstruct(run, tmp_path, capsys):
    out = tmp_path / "deep" / "samples.png"
    assert main(["generate", str(run), "--out", str(out), "--count", "6", "--columns", "3"]) == 0
    with Image.open(out) as sheet:
        assert sheet.size == (3 * 34 + 2, 2 * 34 + 2)
    again = tmp_path / "again.png"
    assert main(["generate", str(run), "--out", str(again), "--count", "6", "--columns", "3"]) == 0
    assert out.read_bytes() == again.read_bytes()
    Image.effect_noise((50, 60), 60).convert("RGB").save(tmp_path / "x.png")
    assert main(["reconstruct", str(run), str(tmp_path / "x.png"), "--out", str(tmp_path / "r.png")]) == 0
    with Image.open(tmp_path / "r.png") as sheet:
        assert sheet.size == (36, 70)


def test_attributes_of_the_package():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = fastvae.nothing
