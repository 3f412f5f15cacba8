"""`fastvae encode`: the file holds what the model says of each image, and nothing that was finished is lost."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import fastvae
from fastvae.cli import main
from fastvae.cli.process import Terminated
from fastvae.data.decoders.pillow import crop_and_resize, decode_file
from fastvae.data.packed import PackedWriter
from fastvae.encode import encode, latents_file, parts
from fastvae.encode.parts import Parts
from fastvae.files import locks
from fastvae.inference.accelerated import AcceleratedVAE
from fastvae.pictures import to_images
from tests.conftest import blobs
from tests.data.layouts import CIFAR_PIXELS, write_cifar_binary
from tests.data.packs import write_zip
from tests.pages import ROOT, python_blocks

COUNT = 40


@pytest.fixture(scope="module")
def vae():
    torch.manual_seed(7)
    return fastvae.VAE(16, width=2, latent=3).eval()


@pytest.fixture(scope="module")
def model(vae, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "model"
    vae.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def other_model(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("other") / "model"
    fastvae.VAE(16, width=2, latent=3).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """40 pictures in two classes, of which one is broken."""
    folder = tmp_path_factory.mktemp("pictures")
    for index, image in enumerate(blobs(COUNT, 24)):
        path = folder / f"class {index % 2}" / f"{index:02d}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(image[: 20 + index % 5]).save(path)
    (folder / "class 1" / "07.png").write_bytes((folder / "class 1" / "09.png").read_bytes()[:100])
    return folder


@pytest.fixture
def small_pieces(monkeypatch):
    """Eight images at once, sixteen in a part."""
    monkeypatch.setattr(encode, "_LARGEST_BATCH", 8)
    monkeypatch.setattr(parts, "_LARGEST", 16)


@pytest.fixture
def encoded(monkeypatch):
    """The sizes of the batches that were encoded; `encoded.at[n] = error` raises it before batch number n."""

    class Encoded(list):
        def __init__(self):
            super().__init__()
            self.at: dict[int, BaseException] = {}

    seen, real = Encoded(), AcceleratedVAE.encode

    def noting(self, images):
        if len(seen) in seen.at:
            raise seen.at.pop(len(seen))
        seen.append(len(images))
        return real(self, images)

    monkeypatch.setattr(AcceleratedVAE, "encode", noting)
    return seen


def run(*arguments) -> int:
    return main(["encode", *map(str, arguments), "--device", "cpu"])


def names_in(tensors: dict[str, torch.Tensor]) -> list[str]:
    return tensors["names"].numpy().tobytes().decode("utf-8", "surrogateescape").split("\0")[:-1]


def metadata(path: Path) -> dict[str, str]:
    with safe_open(path, "np") as file:
        return file.metadata()


def test_decoded_means_are_the_reconstructions(vae, model, folder, tmp_path, capsys):
    out = tmp_path / "missing" / "latents.safetensors"
    assert run(model, folder, "--out", out, "--log-variances") == 0
    said = capsys.readouterr()
    assert "39 images, 1 skipped: means and log-variances [39, 3]" in said.out and "class 1/07.png" in said.err
    tensors = load_file(out)
    assert {name: t.dtype for name, t in tensors.items()} == {
        "indices": torch.int64,
        "means": torch.float32,
        "log_variances": torch.float32,
        "splits": torch.uint8,
        "names": torch.uint8,
    }
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.png"))
    broken = files.index("class 1/07.png")
    assert tensors["indices"].tolist() == [index for index in range(COUNT) if index != broken]
    assert names_in(tensors) == [files[index] for index in tensors["indices"]]
    pixels = np.stack([decode_file(folder / name, crop="auto", size=16) for name in names_in(tensors)])
    with torch.inference_mode():
        images = to_images(torch.from_numpy(pixels))
        mean, log_variance = vae.encode(images)
        assert torch.allclose(tensors["means"], mean, rtol=1e-4, atol=1e-5)
        assert torch.allclose(tensors["log_variances"], log_variance, rtol=1e-4, atol=1e-5)
        assert torch.allclose(vae.decode(tensors["means"]), vae.reconstruct(images), atol=1e-5)
    about = metadata(out)
    assert json.loads(about["skipped"])["count"] == 1 and about["data"] == folder.name and about["model"] == "model"
    assert list(out.parent.iterdir()) == [out]


def test_the_file_is_read_as_shown(vae, model, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(model, folder) == 0
    (shown,) = (block for block in python_blocks(ROOT / "docs" / "usage.md") if "latents.safetensors" in block)
    values = {"vae": vae}
    exec(shown, values)
    assert values["names"][0] == "class 0/00.png" and len(values["names"]) == COUNT - 1
    assert values["pictures"].shape == (16, 3, 16, 16)


def test_a_packed_file_and_one_of_its_splits(vae, model, tmp_path):
    images = blobs(30, 16)
    with PackedWriter(tmp_path / "data.fvae", image_size=16) as writer:  # without names
        writer.append(images, splits=(np.arange(30) % 3).astype(np.uint8))
    with torch.inference_mode():
        expected = vae.encode(to_images(torch.from_numpy(images)))[0]
    assert run(model, tmp_path / "data.fvae", "--out", tmp_path / "all.safetensors") == 0
    tensors = load_file(tmp_path / "all.safetensors")
    assert torch.allclose(tensors["means"], expected, rtol=1e-4, atol=1e-5)
    assert tensors["splits"].tolist() == [0, 1, 2] * 10 and "log_variances" not in tensors
    assert run(model, tmp_path / "data.fvae", "--out", tmp_path / "some.safetensors", "--split", "validation") == 0
    some = load_file(tmp_path / "some.safetensors")
    assert some["indices"].tolist() == list(range(1, 30, 3)) and names_in(some) == [str(i) for i in range(1, 30, 3)]
    assert torch.equal(some["means"], tensors["means"][1::3])


def test_pictures_in_a_zip_file(model, folder, tmp_path, small_pieces, encoded):
    """As those of the folder; after an interruption only what is missing is encoded."""
    write_zip(tmp_path / "data.zip", folder)
    whole, out = tmp_path / "whole.safetensors", tmp_path / "latents.safetensors"
    assert run(model, folder, "--out", whole) == 0
    encoded.clear()
    encoded.at = {3: KeyboardInterrupt()}
    assert run(model, tmp_path / "data.zip", "--out", out) == 130
    assert run(model, tmp_path / "data.zip", "--out", out) == 0 and sum(encoded) == COUNT - 1
    expected, found = load_file(whole), load_file(out)
    assert names_in(found) == names_in(expected)
    assert all(torch.equal(found[name], expected[name]) for name in ("indices", "means", "splits"))


@pytest.mark.parametrize("error", [KeyboardInterrupt(), Terminated(signal.SIGTERM), RuntimeError("a fault")], ids=repr)
def test_whatever_interrupts_it_loses_nothing(model, folder, tmp_path, small_pieces, encoded, capsys, error):
    whole, out = tmp_path / "whole.safetensors", tmp_path / "latents.safetensors"
    assert run(model, folder, "--out", whole) == 0
    assert sum(encoded) == COUNT - 1
    encoded.clear()
    encoded.at = {3: error}
    if isinstance(error, RuntimeError):
        with pytest.raises(RuntimeError):
            run(model, folder, "--out", out)
    else:
        assert run(model, folder, "--out", out) == {KeyboardInterrupt: 130, Terminated: 143}[type(error)]
    assert "24 of 40 images are done and kept; the same command goes on" in capsys.readouterr().err
    assert not out.exists()
    assert run(model, folder, "--out", out) == 0
    assert sum(encoded) == COUNT - 1, "none twice"
    assert out.read_bytes() == whole.read_bytes() and sorted(tmp_path.iterdir()) == [out, whole]
    encoded.clear()
    assert run(model, folder, "--out", out) == 0 and not encoded and "is complete" in capsys.readouterr().out


_KILLED = """
import os, signal, sys
from fastvae.cli import main
from fastvae.encode import encode, parts
from fastvae.inference.accelerated import AcceleratedVAE
encode._LARGEST_BATCH, parts._LARGEST = 8, 16
real, calls = AcceleratedVAE.encode, []
def killing(self, images):
    calls.append(1)
    if len(calls) == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(self, images)
AcceleratedVAE.encode = killing
main(sys.argv[1:])
"""


def test_a_killed_process_loses_the_last_part_alone(model, folder, tmp_path, small_pieces, encoded):
    out = tmp_path / "latents.safetensors"
    command = ["encode", model, folder, "--out", out, "--device", "cpu"]
    assert subprocess.run([sys.executable, "-c", _KILLED, *map(str, command)]).returncode == -signal.SIGKILL
    assert not out.exists()
    assert run(model, folder, "--out", out) == 0
    assert sum(encoded) == COUNT - 16 - 1 and len(load_file(out)["means"]) == COUNT - 1


def test_only_the_last_step_is_left(model, folder, tmp_path, small_pieces, encoded, monkeypatch):
    """Stopped before all parts are put together, and before they are removed."""
    out, write, remove = tmp_path / "latents.safetensors", latents_file.write, Parts.remove

    def stop(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(latents_file, "write", stop)
    assert run(model, folder, "--out", out) == 130 and not out.exists()
    encoded.clear()
    monkeypatch.setattr(latents_file, "write", write)
    monkeypatch.setattr(Parts, "remove", stop)
    assert run(model, folder, "--out", out) == 130 and len(load_file(out)["means"]) == COUNT - 1
    monkeypatch.setattr(Parts, "remove", remove)
    assert len(list(tmp_path.iterdir())) == 2
    assert run(model, folder, "--out", out) == 0 and not encoded and list(tmp_path.iterdir()) == [out]


def test_a_damaged_part_is_made_again(model, folder, tmp_path, small_pieces, encoded):
    out = tmp_path / "latents.safetensors"
    encoded.at = {4: KeyboardInterrupt()}
    assert run(model, folder, "--out", out) == 130
    first, second = sorted((tmp_path / "latents.safetensors.parts").iterdir())
    first.write_bytes(first.read_bytes()[:-1])
    encoded.clear()
    assert run(model, folder, "--out", out) == 0
    assert sum(encoded) == COUNT - 1 and not second.exists()


def test_a_full_disk(model, folder, small_disk, small_pieces, capsys):
    out, filler = small_disk / "latents.safetensors", small_disk / "filler"
    filler.write_bytes(b"x" * ((1 << 20) - 8192))
    assert run(model, folder, "--out", out) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert "No space left on device" in said and "free some space" in said and "images are done and kept" in said
    assert not out.exists()
    filler.unlink()
    assert run(model, folder, "--out", out) == 0
    assert len(load_file(out)["means"]) == COUNT - 1 and list(small_disk.iterdir()) == [out]


def test_what_was_made_otherwise_is_kept(model, other_model, folder, tmp_path, encoded, capsys):
    out, more = tmp_path / "latents.safetensors", tmp_path / "more"
    assert run(model, folder, "--out", out) == 0
    before = out.read_bytes()
    more.mkdir()
    Image.fromarray(blobs(1, 16)[0]).save(more / "a.png")
    for arguments, words in [
        ((other_model, folder), "latents by another model"),
        ((model, more), "latents of other images"),
        ((model, folder, "--split", "train"), "latents of --split all"),
        ((model, folder, "--log-variances"), "latents without log-variances"),
    ]:
        assert run(*arguments, "--out", out) == 2
        assert words in capsys.readouterr().err and out.read_bytes() == before
    save_file({"x": torch.zeros(1)}, out)
    assert run(model, folder, "--out", out) == 2 and "something other than latents" in capsys.readouterr().err
    out.write_text("words")
    assert run(model, folder, "--out", out) == 2 and "something other than latents" in capsys.readouterr().err
    assert run(model, folder, "--out", out, "--overwrite") == 0 and out.read_bytes() == before
    encoded.clear()
    assert run(model, folder, "--out", out, "--overwrite") == 0 and not encoded, "it is complete"
    # The beginning of something else is not gone on with.
    out.unlink()
    encoded.clear()
    encoded.at = {0: KeyboardInterrupt()}
    assert run(model, folder, "--out", out) == 130 and list(tmp_path.iterdir()) == [more]
    encoded.at = {}
    (tmp_path / "latents.safetensors.parts").mkdir()
    stale = tmp_path / "latents.safetensors.parts" / "0000000000-0000000016.safetensors"
    save_file({"x": torch.zeros(1)}, stale, {"format": "fastvae latents 0"})
    assert run(model, folder, "--out", out) == 2 and "holds the beginning of" in capsys.readouterr().err
    assert stale.exists()
    assert run(model, folder, "--out", out, "--overwrite") == 0 and out.read_bytes() == before


def test_an_edited_picture_is_another_and_a_moved_folder_is_not(model, tmp_path, capsys):
    folder, moved, out = tmp_path / "a", tmp_path / "b", tmp_path / "latents.safetensors"
    folder.mkdir()
    for index, image in enumerate(blobs(3, 16)):
        Image.fromarray(image).save(folder / f"{index}.bmp")
    assert run(model, folder, "--out", out) == 0
    folder.rename(moved)
    assert run(model, moved, "--out", out) == 0 and "is complete" in capsys.readouterr().out
    size = (moved / "1.bmp").stat().st_size
    Image.new("RGB", (16, 16)).save(moved / "1.bmp")
    assert (moved / "1.bmp").stat().st_size == size
    assert run(model, moved, "--out", out) == 2 and "latents of other images" in capsys.readouterr().err


def test_images_in_arrays(vae, model, tmp_path):
    """CIFAR-10's binary files: pixels that no decoder sees, resized to what the model takes."""
    write_cifar_binary(tmp_path / "cifar")
    assert run(model, tmp_path / "cifar", "--out", tmp_path / "latents.safetensors", "--split", "test") == 0
    tensors = load_file(tmp_path / "latents.safetensors")
    small = [crop_and_resize(Image.fromarray(image), crop="auto", size=16) for image in CIFAR_PIXELS[5]]
    with torch.inference_mode():
        expected = vae.encode(to_images(torch.from_numpy(np.stack(small))))[0]
    assert torch.allclose(tensors["means"], expected, rtol=1e-4, atol=1e-5)
    assert (
        names_in(tensors) == ["test_batch/0", "test_batch/1", "test_batch/2"] and tensors["splits"].tolist() == [2] * 3
    )


def test_names_that_are_not_utf8_and_names_that_repeat(model, tmp_path):
    name = os.fsdecode(b"\xfc\n.png")
    (tmp_path / "a").mkdir()
    Image.fromarray(blobs(1, 16)[0]).save(tmp_path / "a" / name, format="PNG")
    (tmp_path / "a" / os.fsdecode(b"\xfd.png")).write_text("no picture")
    for out in (tmp_path / f"{name}.safetensors", tmp_path / "a.safetensors"):
        assert run(model, tmp_path / "a", "--out", out) == 0
    assert names_in(load_file(tmp_path / "a.safetensors")) == [name]
    assert (tmp_path / f"{name}.safetensors").read_bytes() == (tmp_path / "a.safetensors").read_bytes()
    with PackedWriter(tmp_path / "data.fvae", image_size=16) as writer:
        writer.append(blobs(2, 16), splits=np.zeros(2, np.uint8), names=["same", "same"])
    assert run(model, tmp_path / "data.fvae", "--out", tmp_path / "b.safetensors") == 0
    tensors = load_file(tmp_path / "b.safetensors")
    assert names_in(tensors) == ["same", "same"] and tensors["indices"].tolist() == [0, 1]


def test_two_at_once(model, folder, tmp_path, capsys):
    place = tmp_path / "latents.safetensors.parts"
    place.mkdir()
    descriptor = os.open(place, os.O_RDONLY)
    try:
        assert locks.try_lock(descriptor)
        assert run(model, folder, "--out", tmp_path / "latents.safetensors") == 1
        assert "another process is writing" in capsys.readouterr().err
    finally:
        os.close(descriptor)


@pytest.fixture
def places(tmp_path, packed, folder) -> dict[str, Path]:
    for name in ("empty", "texts", "broken"):
        (tmp_path / name).mkdir()
    (tmp_path / "texts" / "a.txt").write_text("words")
    for index in range(3):
        (tmp_path / "broken" / f"{index}.jpg").write_bytes(b"\xff\xd8\xff")
    os.mkfifo(tmp_path / "pipe")
    return {name: tmp_path / name for name in ("empty", "texts", "broken", "pipe", "nowhere")} | {"size": packed.path}


@pytest.mark.parametrize(
    ("data", "flags", "code", "words"),
    [
        ("empty", [], 1, "no pictures"),
        ("texts", [], 1, "no pictures"),
        ("broken", [], 1, "none of the 3 images of"),
        ("pipe", [], 1, "is not a regular file"),
        ("nowhere", [], 1, "does not exist"),
        ("size", [], 2, "takes images of 16x16 pixels and"),
        ("pictures", ["--split", "test"], 1, "has no images in its test split"),
        ("pictures", ["--out", "x.npz"], 2, "must end in .safetensors"),
        ("pictures", ["--out", "."], 2, "is a folder"),
        ("pictures", ["--out", "pipe/x.safetensors"], 2, "is not a folder that can be written into"),
        ("pictures", ["--out", "pipe"], 2, "is a device or a pipe"),
        ("pictures", ["--out", ""], 2, "a path is empty"),
    ],
)
def test_what_cannot_be(model, folder, places, tmp_path, monkeypatch, capsys, data, flags, code, words):
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    assert run(model, places.get(data, folder), *flags) == code
    said = capsys.readouterr()
    assert words in said.err.splitlines()[-1] and not said.out and sorted(tmp_path.rglob("*")) == before


def test_models_that_cannot_encode(model, folder, tmp_path, capsys):
    with safe_open(model / "model.safetensors", "pt") as file:
        about, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    tensors["encoder.mean.bias"][0] = torch.nan
    save_file(tensors, tmp_path / "nan.safetensors", about)
    assert run(tmp_path / "nan.safetensors", folder, "--out", tmp_path / "latents.safetensors") == 1
    assert "nan" in capsys.readouterr().err.lower() and [p.name for p in tmp_path.iterdir()] == ["nan.safetensors"]
    given = ["--out", tmp_path / "nan.safetensors", "--overwrite"]
    assert run(tmp_path / "nan.safetensors", folder, *given) == 2 and "which is read" in capsys.readouterr().err


def test_no_permission(model, folder, tmp_path, monkeypatch, capsys):
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path and access(path, mode))
    assert run(model, folder, "--out", tmp_path / "latents.safetensors") == 2
    assert "is not a folder that can be written into" in capsys.readouterr().err
