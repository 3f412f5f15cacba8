"""`fastvae generate` and `fastvae reconstruct`: what is asked for is written, and nothing else is lost."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

import fastvae
from fastvae.cli import main
from fastvae.data.packed import PackedWriter
from fastvae.train.checkpoint_files import latest


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "model"
    fastvae.VAE(16, width=2, latent=3).eval().save_pretrained(folder)
    return str(folder)


@pytest.fixture
def fails(capsys):
    """One line on standard error, and nothing else."""

    def check(words: str, *arguments, code: int = 2) -> None:
        assert main([str(argument) for argument in arguments]) == code
        said = capsys.readouterr()
        assert words in said.err and len(said.err.splitlines()) == 1 and not said.out

    return check


@pytest.fixture
def photo(tmp_path) -> Path:
    Image.effect_noise((50, 60), 60).convert("RGB").save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def test_more_than_a_batch(model, tmp_path, capsys):
    flags = ["--count", "300", "--columns", "20", "--seed", str(2**63 - 1)]
    assert main(["generate", model, "--out", str(tmp_path / "many.png"), *flags]) == 0
    with Image.open(tmp_path / "many.png") as sheet:
        assert sheet.size == (20 * 18 + 2, 15 * 18 + 2)
        assert np.asarray(sheet)[-3, -3].tolist() != [255, 255, 255], "the last place is filled"


def test_reconstructions_of_more_than_a_batch(model, tmp_path, photo):
    names = [str(photo)] * 131
    assert main(["reconstruct", model, *names, "--out", str(tmp_path / "r.webp")]) == 0
    with Image.open(tmp_path / "r.webp") as sheet:
        assert sheet.size == (8 * 18 + 2, 2 * 17 * 18 + 2) and sheet.format == "WEBP"


def test_home_is_expanded(model, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert main(["generate", model, "--out=~/a.jpg", "--count", "1"]) == 0
    assert Image.open(tmp_path / "a.jpg").format == "JPEG"


def test_names_that_are_not_utf8(tmp_path, photo, capfd):
    name = os.fsdecode(b"\xfc")
    folder = tmp_path / f"lauf-{name}"
    fastvae.VAE(16, width=2, latent=3).save_pretrained(folder)
    photo.rename(tmp_path / f"{name}.png")
    assert main(["generate", str(folder), "--count", "1", "--out", str(tmp_path / f"s-{name}.png")]) == 0
    picture = str(tmp_path / f"{name}.png")
    assert main(["reconstruct", str(folder), picture, "--out", str(tmp_path / f"r-{name}.png")]) == 0
    labels = ["--labels", name, "--images", picture, "--out", str(tmp_path / f"f-{name}.png")]
    assert main(["figures", "reconstructions", str(folder), *labels]) == 0
    capfd.readouterr()
    assert {os.fsencode(path.name) for path in tmp_path.glob("*-*.png")} == {
        b"s-\xfc.png",
        b"r-\xfc.png",
        b"f-\xfc.png",
    }


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--seed", str(2**63)], "seed must be"),
        (["--seed", "-1"], "seed must be"),
        (["--count", "0"], "count must be"),
        (["--count", str(10**9)], "are too many"),
        (["--count", str(10**9), "--columns", str(10**5)], "are too many"),
        (["--columns", "0"], "columns must be"),
        (["--count", "1" + "0" * 400], "count must be"),
        (["--out", ""], "a path is empty"),
        (["--out", "."], "is a folder"),
        (["--out", "x.gif"], ".png, .jpg, .jpeg, .webp"),
        (["--out", "x"], ".png, .jpg, .jpeg, .webp"),
        (["--out", "~nobody-of-this-name/x.png"], "home folder"),
        (["--out", "x.jpg", "--count", "60000", "--columns", "1"], "JPEG is limited to 65,500 a side"),
    ],
)
def test_flags_that_cannot_be(model, fails, flags, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fails(words, "generate", model, *flags)
    assert not list(tmp_path.iterdir())


def test_what_is_read_is_not_written_over(model, fails, photo, tmp_path):
    (tmp_path / "link.png").symlink_to("photo.png")
    os.link(photo, tmp_path / "same.png")
    before = photo.read_bytes()
    for given, out in [
        (photo, photo),
        (photo, tmp_path / "link.png"),
        (tmp_path / "link.png", photo),
        (photo, tmp_path / "x" / ".." / "photo.png"),
        (photo, tmp_path / "same.png"),
    ]:
        fails("which is read", "reconstruct", model, given, "--out", out)
        fails("which is read", "figures", "reconstructions", model, "--images", given, "--out", out)
    fails("which is read", "figures", "reconstructions", model, "--data", tmp_path, "--out", photo)
    fails("which is read", "figures", "reconstructions", model, "--data", tmp_path, "--out", tmp_path / "new.png")
    assert photo.read_bytes() == before
    assert main(["reconstruct", model, str(photo), "--out", str(tmp_path / "Photo.png")]) == 0


def test_the_files_of_a_run_are_not_written_over(run, model, fails, photo, packed, tmp_path):
    saved = tmp_path / "saved"
    fastvae.load(run).save_pretrained(saved)
    pictures = sorted((run / "pictures").iterdir())
    (tmp_path / "link.png").symlink_to(pictures[0])
    kept = [*pictures, saved / "reconstructions.png", run / "config.json", latest(run) / "state.json"]
    before = {path: path.read_bytes() for path in kept}
    for out in (*pictures, tmp_path / "link.png", saved / "reconstructions.png"):
        fails("would lose it", "generate", model, "--out", out)
        fails("would lose it", "reconstruct", model, photo, "--out", out)
        fails("would lose it", "figures", "samples", model, "--out", out)
    for out in (run / "config.json", run / "environment.json", latest(run) / "state.json", saved / "config.json"):
        fails("would lose it", "evaluate", run, "--data", packed.path, "--out", out)
        fails("would lose it", "latency", run, "--out", out)
    fails("would lose it", "latency", run, "--out", saved / "reconstructions.json")
    assert {path: path.read_bytes() for path in kept} == before
    (run / "pictures" / "mine.png").touch()
    try:
        assert main(["generate", model, "--count", "1", "--out", str(run / "pictures" / "mine.png")]) == 0
    finally:
        (run / "pictures" / "mine.png").unlink()


@pytest.mark.parametrize("command", ["generate", "reconstruct", "figures samples", "evaluate"])
def test_nan_is_not_drawn_as_a_colour(model, command, photo, tmp_path, capsys):
    with safe_open(Path(model) / "model.safetensors", "pt") as file:
        metadata, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    tensors["decoder.linear.weight"].view(-1)[0] = torch.nan
    save_file(tensors, tmp_path / "nan.safetensors", metadata)
    out = ["--out", tmp_path / "out.png"]
    if command == "reconstruct":
        out = [photo, *out]
    if command == "evaluate":
        data = tmp_path / "data.fvae"
        with PackedWriter(data, image_size=16) as writer:
            writer.append(np.zeros((30, 16, 16, 3), np.uint8), splits=(np.arange(30) >= 15).astype(np.uint8))
        out = ["--data", data, "--inception", "none", "--vgg", "none", "--out", tmp_path / "out.json"]
    assert main([*command.split(), str(tmp_path / "nan.safetensors"), *map(str, out)]) == 1
    assert "NaN or infinity" in capsys.readouterr().err and not list(tmp_path.glob("out*"))


def test_what_is_no_picture_is_passed_over(model, photo, tmp_path, capsys):
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "text.jpg").write_text("words")
    others = [str(tmp_path / name) for name in ("pipe.jpg", "folder.jpg", "text.jpg", "missing.jpg", "x" * 300)]
    out = ["--out", str(tmp_path / "out.png")]
    assert main(["reconstruct", model, *others, str(photo), *out]) == 0
    said = capsys.readouterr()
    assert said.out.startswith("1 images") and [f"skipped {name}" in said.err for name in others] == [True] * 5
    assert main(["reconstruct", model, *others, *out]) == 1
    for name in others:
        assert main(["figures", "reconstructions", model, "--images", name, *out]) == 1
