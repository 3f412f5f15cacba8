"""`fastvae attributes` from end to end."""

import csv
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

import fastvae
from fastvae.attributes import recognise as recognising
from fastvae.attributes.table1 import SYSTEMS, table1
from fastvae.cli import main
from tests.attributes.data import tiny_vgg, write

# The package's function hides its module of the same name.
RECOGNISE = sys.modules[recognising.__module__]
PAPER = [f"paper_{system}" for system in SYSTEMS]


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return write(tmp_path_factory.mktemp("data") / "images.fvae").path


def table(out, so_far=""):
    with (out / f"attributes{so_far}.csv").open() as file:
        return {row["attribute"]: row for row in csv.DictReader(file)}


def test_two_runs_from_end_to_end(run, images, tmp_path, capsys):
    out = tmp_path / "made" / "attributes"
    assert main(["attributes", str(run), str(run), "--data", str(images), "--out", str(out)]) == 0
    said = capsys.readouterr().out
    rows = table(out)
    assert list(rows) == ["Smiling", "Bald", "Has_Antenna", "average"]
    header = ["attribute", "accuracy", "balanced_accuracy", "majority_accuracy", "C", *PAPER]
    assert list(rows["Smiling"]) == header
    assert float(rows["Smiling"]["accuracy"]) == 100 and float(rows["Smiling"]["majority_accuracy"]) == 50
    assert float(rows["Bald"]["balanced_accuracy"]) < 80
    assert [int(rows["Smiling"][name]) for name in PAPER] == list(table1()["Smiling"].values())
    assert all(rows["Has_Antenna"][name] == "" for name in PAPER)
    mean = np.mean([float(rows[name]["accuracy"]) for name in ("Smiling", "Bald", "Has_Antenna")])
    assert float(rows["average"]["accuracy"]) == pytest.approx(mean, abs=0.01)
    both = (table1()["Smiling"]["VAE-WGAN"] + table1()["Bald"]["VAE-WGAN"]) / 2
    assert float(rows["average"]["paper_VAE-WGAN"]) == both

    values = json.loads((out / "attributes.json").read_text())
    assert values["complete"] and values["features"] == {"count": 8, "from": ["run", "run"]}
    assert values["images"] == {"train": 60, "choose": 24, "test": 30}
    assert values["excluded"] == {"Pale_Skin": "every training image has it"}
    assert [a["c"] in values["grid"] for a in values["attributes"]] == [True] * 3
    assert min(values["encoding_s"], values["fitting_s"], *(a["seconds"] for a in values["attributes"])) >= 0

    text = (out / "attributes.txt").read_text()
    for words in (
        "linear SVMs on 8 features of run + run; images.fvae: 60 training, 24 choosing and 30 test images",
        "Pale_Skin is left out, also from the averages: every training image has it.",
        "The paper tests on 20,000 of CelebA's 202,599 images",
        "Over all 40 the paper has FaceTracer 81.13",
    ):
        assert words in text and (words in said or words.startswith("linear"))
    assert "memory: features 0.0 MB" in said and "fitted on training images only" in said
    with Image.open(out / "attributes.png") as drawn:
        ink = np.asarray(drawn.convert("L")) < 128
    edges = (ink[:2], ink[-2:], ink[:, :2], ink[:, -2:])
    assert ink.any() and not any(edge.any() for edge in edges)


def test_runs_that_end_alike_are_told_apart(run, images, tmp_path):
    copies = [tmp_path / name / "run" for name in "ab"]
    for copy in copies:
        shutil.copytree(run, copy)
    assert main(["attributes", *map(str, copies), "--data", str(images), "--out", str(tmp_path / "out")]) == 0
    values = json.loads((tmp_path / "out" / "attributes.json").read_text())
    assert values["runs"] == ["a/run", "b/run"] and str(tmp_path) not in json.dumps(values)
    assert [m["name"] for m in values["models"]] == values["features"]["from"] == ["a/run", "b/run"]


def test_images_that_are_not_celebas(run, tmp_path, capsys):
    data = write(tmp_path / "drawn.fvae", counts=(60, 24, 0), kind="faces").path
    out = tmp_path / "out"
    assert main(["attributes", str(run), "--data", str(data), "--out", str(out), "--max-train", "40"]) == 0
    text = (out / "attributes.txt").read_text()
    assert "no test split, so the validation images are halved" in text and "40 of 60 training images" in text
    assert "these images are not CelebA's" in text and "FaceTracer" not in text
    assert all(row[name] == "" for row in table(out).values() for name in PAPER)


def test_vgg_fc_alone_and_beside_a_run(run, images, tmp_path):
    file = tmp_path / "tiny.pth"
    torch.save(tiny_vgg(fc=(5, 4)), file)
    flags = ["--vgg-fc", str(file), "--data", str(images), "--max-train", "20", "--test-images", "8", "--out"]
    for runs, count in (([], 4), ([str(run)], 8)):
        assert main(["attributes", *runs, *flags, str(tmp_path / str(count))]) == 0
        values = json.loads((tmp_path / str(count) / "attributes.json").read_text())
        assert values["features"]["count"] == count and values["images"]["test"] == 8
        assert "fc7" in values["features"]["from"][-1]


def test_stopped_it_keeps_what_it_has(run, images, tmp_path, monkeypatch, capsys):
    fit = RECOGNISE._fit

    def stopped(name, *arguments, **named):
        if name == "Has_Antenna":
            raise KeyboardInterrupt
        if name == "Bald":  # a machine that is switched off here leaves the first result
            assert list(table(out, "-incomplete")) == ["Smiling", "average"]
        return fit(name, *arguments, **named)

    out = tmp_path / "out"
    attributes = ["attributes", str(run), "--data", str(images), "--jobs", "1", "--out", str(out)]
    assert main(attributes) == 0
    complete = {path: path.read_bytes() for path in out.iterdir()}
    with monkeypatch.context() as patch:
        patch.setattr(RECOGNISE, "_fit", stopped)
        assert main(attributes) == 130
    assert "Incomplete: stopped after 2 attributes" in capsys.readouterr().out
    assert list(table(out, "-incomplete")) == ["Smiling", "Bald", "average"]
    assert not json.loads((out / "attributes-incomplete.json").read_text())["complete"]
    assert complete == {path: path.read_bytes() for path in complete}
    assert main(attributes) == 0 and set(out.iterdir()) == set(complete)


def test_without_matplotlib_there_is_everything_else(run, images, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main(["attributes", str(run), "--data", str(images), "--out", str(tmp_path)]) == 0
    assert (tmp_path / "attributes.csv").exists() and not (tmp_path / "attributes.png").exists()
    assert "pip install -e '.[eval]'" in capsys.readouterr().err


@pytest.mark.parametrize(
    "flags, code, words",
    [
        (["RUN", "--data", "DATA", "--max-train", "1"], 2, "max-train must be 2 or more"),
        (["RUN", "--data", "DATA", "--c", "0.1", "0"], 2, "values of C must be more than 0; got 0.1 0"),
        (["--data", "DATA"], 2, "give one or more runs, or --vgg-fc FILE"),
        (["RUN", "--data", "DATA", "--out", "/dev/null/x"], 2, "/dev/null is not a folder"),
        (["RUN", "--data", "missing.fvae"], 1, "missing.fvae does not exist"),
        (["RUN", "--data", "BLOBS"], 1, "has no attributes"),
        (["RUN", "OTHER", "--data", "DATA"], 2, "different sizes (run 32x32, other 64x64)"),
    ],
)
def test_bad_input(run, images, packed, tmp_path, flags, code, words, capsys):
    fastvae.VAE(64, width=2, latent=4).save_pretrained(tmp_path / "other")
    named = {"RUN": run, "DATA": images, "BLOBS": packed.path, "OTHER": tmp_path / "other"}
    flags = [str(named.get(flag, flag)) for flag in flags]
    if "--out" not in flags:
        flags += ["--out", str(tmp_path / "out")]
    assert main(["attributes", *flags]) == code
    said = capsys.readouterr().err
    assert words in said and "Traceback" not in said
    assert not (tmp_path / "out").exists()


def test_only_attributes_that_cannot_be_judged(run, tmp_path, capsys):
    data = write(tmp_path / "few.fvae", counts=(1, 2, 2)).path
    assert main(["attributes", str(run), "--data", str(data), "--out", str(tmp_path / "out")]) == 1
    assert "no attribute can be tested: Smiling: every training image has it" in capsys.readouterr().err


def test_help_does_not_wait_for_torch():
    ask = "import sys, fastvae.cli.attributes; print([name for name in ('torch', 'sklearn') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True).stdout == "[]\n"
