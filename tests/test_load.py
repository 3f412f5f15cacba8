"""`fastvae.load`: what comes back from a run, a checkpoint and a file."""

import os

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

import fastvae
from fastvae.cli import main
from fastvae.errors import FastvaeError
from fastvae.files import locks
from fastvae.hub.locate import read_model
from fastvae.pictures import to_images
from fastvae.train.checkpoint_files import latest


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


def test_it_is_float32_whatever_torchs_default_is(run):
    torch.set_default_dtype(torch.float64)
    try:
        assert {p.dtype for p in fastvae.load(run).parameters()} == {torch.float32}
    finally:
        torch.set_default_dtype(torch.float32)


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


def test_places_where_there_is_no_model(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").touch()
    (tmp_path / "text.safetensors").write_text("words")
    os.mkfifo(tmp_path / "pipe.safetensors")
    save_file({"x": torch.zeros(1)}, tmp_path / "other.safetensors")
    places = ["", " ", "photos", "photos/a.jpg", "text.safetensors", "pipe.safetensors", "other.safetensors", "x" * 300]
    for place in [*places, "..", "~nobody-of-this-name/run", "a\x00b", "/", str(run / "pictures")]:
        with pytest.raises(FastvaeError) as error:
            fastvae.load(place)
        said = str(error.value)
        assert "\n" not in said and "remove" not in said.lower() and "is damaged" not in said, place


def test_home_is_expanded(run, monkeypatch):
    monkeypatch.setenv("HOME", str(run.parent))
    assert fastvae.load(f"~/{run.name}").latent == fastvae.VAE.from_pretrained(f"~/{run.name}").latent == 4


@pytest.mark.parametrize("wrap", ["module.{}", "_orig_mod.{}", "module._orig_mod.{}", "{}"])
def test_names_that_wrappers_gave_the_weights(run, tmp_path, wrap):
    source = latest(run) / "model.safetensors"
    with safe_open(source, "pt") as file:
        metadata, tensors = file.metadata(), {wrap.format(name): file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    inner = {name.replace("decoder.", "decoder._orig_mod.", 1): value for name, value in tensors.items()}
    for number, stored in enumerate((tensors, inner)):
        save_file(stored, tmp_path / f"{number}.safetensors", metadata)
        vae = fastvae.load(tmp_path / f"{number}.safetensors")
        assert torch.equal(vae.decoder.linear.weight, fastvae.load(run).decoder.linear.weight)


def test_weights_do_not_change_with_their_file(run, tmp_path):
    path = tmp_path / "copy.safetensors"
    path.write_bytes((latest(run) / "model.safetensors").read_bytes())
    vae = fastvae.load(path)
    before = {name: value.clone() for name, value in vae.state_dict().items()}
    with path.open("r+b") as file:
        file.seek(-4096, os.SEEK_END)
        file.write(b"\x7f" * 4096)
    assert all(torch.equal(value, before[name]) for name, value in vae.state_dict().items())


def test_a_checkpoint_that_is_read_is_not_removed(run, monkeypatch):
    newest = latest(run)
    seen = []

    def read(file, view):
        with locks.removing(newest) as free:
            seen.append(free)

    for place in (run, newest, newest / "model.safetensors"):
        read_model(place, read)
    assert seen == [not locks.AVAILABLE] * 3


@pytest.mark.parametrize("device", ["nonsense", "cuda:77", "", None, 3.5])
def test_a_device_that_is_not_there(run, device):
    with pytest.raises(FastvaeError, match="expected a device such as"):
        fastvae.load(run, device=device)
