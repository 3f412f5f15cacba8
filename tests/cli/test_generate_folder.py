"""`fastvae generate --folder`: one PNG for each image, which any command makes again, and none is made twice."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import fastvae
from fastvae.cli import main
from fastvae.runs.drawn_files import DrawnFiles

TINY = ["--image-size", "32", "--width", "2", "--latent", "4", "--batch-size", "8", "--steps", "1", "--device", "cpu"]
TINY += ["--precision", "fp32", "--compile", "off"]


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "model"
    fastvae.VAE(16, width=2, latent=3).eval().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def runs(run, packed, tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("runs")
    multi_view = ["celeba64-multiview", "--vgg", "random", "--layers", "relu1_1", "relu2_1"]
    for name, recipe in (("gan", ["cifar10-dcgan"]), ("views", multi_view)):
        assert main(["train", *recipe, "--data", str(packed.path), "--out", str(folder / name), *TINY]) == 0
    return {"vae": run, "gan": folder / "gan", "view": folder / "views" / "relu2_1"}


@pytest.fixture
def written(monkeypatch):
    """The numbers that were written; KeyboardInterrupt before the one in `written.stop`."""

    class Written(list):
        stop: int | None = None

    seen, real = Written(), DrawnFiles.write

    def noting(self, number, pixels):
        if number == seen.stop:
            raise KeyboardInterrupt
        seen.append(number)
        real(self, number, pixels)

    monkeypatch.setattr(DrawnFiles, "write", noting)
    return seen


def generate(*arguments) -> int:
    return main(["generate", *map(str, arguments), "--device", "cpu"])


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("kind", ["vae", "gan", "view"])
def test_every_range_gives_the_same_files(runs, kind, tmp_path, capsys):
    model, flags = runs[kind], ["--seed", "7"]
    assert generate(model, "--folder", tmp_path / "all", "--count", "20", *flags) == 0
    assert capsys.readouterr().out.endswith("seed7-000000.png and so on\n")
    files = contents(tmp_path / "all")
    assert sorted(files) == [f"seed7-{number:06d}.png" for number in range(20)]
    assert len(set(files.values())) == 20
    assert generate(model, "--folder", tmp_path / "some", "--first", "13", "--count", "5", *flags) == 0
    assert contents(tmp_path / "some") == {name: files[name] for name in sorted(files)[13:18]}
    assert generate(model, "--out", tmp_path / "sheet.png", "--first", "13", "--count", "5", *flags) == 0
    sheet = np.asarray(Image.open(tmp_path / "sheet.png"))
    for place, name in enumerate(sorted(files)[13:18]):
        image = np.asarray(Image.open(tmp_path / "all" / name))
        assert image.shape == (32, 32, 3)
        assert np.array_equal(sheet[2:34, 2 + 34 * place : 34 + 34 * place], image)


def test_an_interrupted_command_goes_on(model, tmp_path, written, capsys):
    command = [model, "--count", "40", "--folder", tmp_path / "images"]
    written.stop = 21
    assert generate(*command) == 130
    assert "21 of 40 images are in" in capsys.readouterr().err and len(contents(tmp_path / "images")) == 21
    written.stop = None
    (tmp_path / "images" / "seed0-000030.png").touch()  # after a power failure
    damaged = tmp_path / "images" / "seed0-000007.png"
    damaged.write_bytes(damaged.read_bytes()[:-20])
    assert generate(*command) == 0
    assert sorted(written) == sorted([*range(40), 7])
    assert "40 images in" in capsys.readouterr().out
    written.clear()
    before = contents(tmp_path / "images")
    assert generate(*command) == 0 and not written and contents(tmp_path / "images") == before
    assert generate(*command[:-1], tmp_path / "fresh") == 0 and contents(tmp_path / "fresh") == before
    assert generate(*command, "--seed", "1") == 0 and len(contents(tmp_path / "images")) == 80


def test_pictures_of_something_else_are_kept(model, tmp_path, capsys):
    folder, number = tmp_path / "images", "seed0-000002.png"
    assert generate(model, "--count", "3", "--folder", folder) == 0
    ours = contents(folder)
    torch.manual_seed(1)
    fastvae.VAE(16, width=2, latent=3).save_pretrained(tmp_path / "other")
    assert generate(tmp_path / "other", "--count", "3", "--folder", folder) == 2
    assert "is a picture of something else" in capsys.readouterr().err and contents(folder) == ours
    Image.new("RGB", (3, 3)).save(folder / number)
    theirs = contents(folder)
    assert generate(model, "--count", "3", "--folder", folder) == 2 and contents(folder) == theirs
    assert generate(model, "--count", "2", "--folder", folder) == 0 and contents(folder) == theirs
    assert generate(model, "--count", "3", "--folder", folder, "--overwrite") == 0 and contents(folder) == ours


def test_a_full_disk(model, small_disk, capsys):
    filler = small_disk / "filler"
    filler.write_bytes(b"x" * ((1 << 20) - 16384))
    command = [model, "--count", "20", "--folder", small_disk / "images"]
    assert generate(*command) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert "No space left on device" in said and "of 20 images are there; the same command goes on" in said
    filler.unlink()
    assert generate(*command) == 0 and len(contents(small_disk / "images")) == 20


def test_names_that_are_not_utf8(model, tmp_path):
    folder = tmp_path / os.fsdecode(b"\xfc")
    assert generate(model, "--count", "1", "--folder", folder) == 0 and list(contents(folder)) == ["seed0-000000.png"]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--folder", "images", "--out", "x.png"], "not both"),
        (["--folder", "file"], "is not a folder that can be written into"),
        (["--folder", ""], "a path is empty"),
        (["--folder", "images", "--first", "-1"], "first must be"),
        (["--folder", "images", "--count", "0"], "count must be"),
    ],
)
def test_flags_that_cannot_be(model, tmp_path, monkeypatch, capsys, flags, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    assert generate(model, *flags) == 2
    said = capsys.readouterr().err
    assert words in said and len(said.splitlines()) == 1 and [p.name for p in tmp_path.iterdir()] == ["file"]
