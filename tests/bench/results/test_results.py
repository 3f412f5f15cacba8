"""Records of complete runs, and the page that is made of them."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.results import measure, page, pictures
from bench.results.curves import curves
from fastvae.data.packed import PackedWriter
from fastvae.errors import FastvaeError
from fastvae.evaluate import inception
from fastvae.figures.reconstructions import reconstruct
from fastvae.figures.samples import sample
from fastvae.runs.open import open_runs
from tests.conftest import blobs
from tests.evaluate import standins

pytest.importorskip("skimage")


def test_curves_are_thinned_to_means_of_neighbours():
    lines = [{"step": step, "kl": float(step), "seconds": 1.0, "lr": 1.0} for step in range(1, 251)]
    lines[9]["held_out_psnr_db"] = 20.0
    found = curves(lines, points=100)
    assert found.keys() == {"kl", "held_out_psnr_db"}
    assert found["held_out_psnr_db"] == {"curve_step": [10], "curve_value": [20.0]}
    assert found["kl"]["curve_step"][:2] == [3, 6] and found["kl"]["curve_step"][-1] == 250
    assert found["kl"]["curve_value"][:2] == [2.0, 5.0] and len(found["kl"]["curve_value"]) == 84


@pytest.mark.parametrize("value", [math.nan, math.inf, None])
def test_what_is_not_finite_is_refused(value):
    with pytest.raises(FastvaeError, match="kl is not finite at step 3"):
        curves([{"step": 3, "kl": value}])


@pytest.fixture
def record(run, tmp_path, monkeypatch):
    """Of the session's tiny run."""
    monkeypatch.setattr(inception, "FEATURES", standins.FEATURES)
    monkeypatch.setenv("FASTVAE_CACHE", str(tmp_path / "cache"))
    data = tmp_path / "set.fvae"
    with PackedWriter(data, image_size=32) as writer:
        writer.append(blobs(32, 32), splits=np.repeat([0, 1], [20, 12]).astype(np.uint8))
    network = tmp_path / "inception.pt"
    standins.save(standins.FeaturesAlone(), network)
    flags = ["--data", str(data), "--count", "12", "--vgg", "random", "--inception", str(network), "--device", "cpu"]
    assert measure.main([str(run), *flags, "--name", "trial", "--pictures", "--out", str(tmp_path / "records")]) == 0
    return tmp_path / "records" / "trial.json"


def test_a_record_holds_scores_curves_and_no_path_of_this_machine(record, run, tmp_path):
    values = json.loads(record.read_text())
    assert (values["name"], values["steps"], values["images"]) == ("trial", 3, 24)
    numbers = values["numbers"]
    assert {"fid", "reconstruction_fid", "psnr_db", "ssim", "rec", "kl", "held_out_sharpness"} <= numbers.keys()
    assert all(math.isfinite(n) for n in numbers.values()) and values["real_images"]["fid"] > 0
    lines = [json.loads(line) for line in (run / "stats.jsonl").read_text().splitlines()]
    assert values["curves"]["kl"]["curve_value"][-1] == pytest.approx(lines[-2]["kl"], rel=1e-4)
    assert values["seconds"] == max(line.get("seconds", 0) for line in lines)
    assert values["config"]["data"] == "blobs.fvae"
    assert str(tmp_path) not in record.read_text() and str(Path(run).parent) not in record.read_text()


def test_pictures_are_kept_as_pixels(record, run):
    kept = pictures.sheets([json.loads(record.read_text())], record.parent)
    assert kept.keys() == {"samples", "reconstructions"}
    opened = open_runs([run])[0]
    drawn = pictures._pixels(record.parent / "trial-samples.png", 32)
    np.testing.assert_array_equal(drawn.reshape(-1, 32, 32, 3), sample(opened.model, 36, 0))
    originals, reconstructed = pictures._pixels(record.parent / "trial-reconstructions.png", 32)
    np.testing.assert_array_equal(reconstructed, reconstruct(opened.vae, originals))


def test_reconstructions_of_different_images_are_not_shown_together(record):
    values = json.loads(record.read_text())
    path = record.parent / "other-reconstructions.png"
    pixels = np.asarray(Image.open(record.parent / "trial-reconstructions.png"))
    Image.fromarray(255 - pixels).save(path)
    kept = pictures.sheets([values, {**values, "name": "other"}], record.parent)["reconstructions"]
    with pytest.raises(FastvaeError, match="trial, other reconstruct different images"):
        pictures.draw_sheet("reconstructions", kept, record.parent / "sheet.png")


def test_urls_and_relative_paths_stay():
    kept = {"a": ["https://host/a/b.pt", "runs/faces", "hub:user/name", "1/2"]}
    assert measure._without_folders(kept) == kept
    assert measure._without_folders("from /data/of/mine/set.fvae, ~/x/vgg.pth") == "from set.fvae, vgg.pth"


def test_a_folder_that_is_no_run_is_refused(tmp_path, capsys):
    assert measure.main([str(tmp_path), "--data", "faces", "--out", str(tmp_path)]) == 1
    assert "config.json" in capsys.readouterr().err


@pytest.fixture
def checkout(record, tmp_path, monkeypatch):
    """A checkout with the record of one run."""
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "results.md").write_text("before\n<!-- results -->\nold\n<!-- /results -->\nafter\n")
    monkeypatch.setattr(page, "ROOT", tmp_path)
    monkeypatch.setattr(page, "FOLDER", record.parent)
    return tmp_path


def test_the_page_follows_the_records(checkout, record, capsys):
    assert page.main(["--check"]) == 1
    charts = "docs/results-celeba64.png, docs/results-celeba64-samples.png, docs/results-celeba64-reconstructions.png"
    assert f"out of date: {charts}, docs/results.md" in capsys.readouterr().out
    assert page.main([]) == 0 and page.main(["--check"]) == 0
    text = (checkout / "docs" / "results.md").read_text()
    values = json.loads(record.read_text())
    assert text.startswith("before\n") and text.endswith("after\n") and "old" not in text
    row = next(line for line in text.splitlines() if line.startswith("| [trial]"))
    assert f"| {values['numbers']['psnr_db']:.2f} |" in row and "| 24 |" in row
    assert "critic's share |" not in text, "a column without a number"
    assert all(f"]({Path(path).name})" in text for path in charts.split(", "))
    values["numbers"]["psnr_db"] += 1
    record.write_text(json.dumps(values))
    assert page.main(["--check"]) == 1 and "docs/results.md;" in capsys.readouterr().out
    values["curves"]["kl"]["curve_value"][0] += 1
    record.write_text(json.dumps(values))
    assert page.main(["--check"]) == 1 and "docs/results-celeba64.png," in capsys.readouterr().out
    assert page.main([]) == 0
    pixels = record.parent / "trial-samples.png"
    Image.fromarray(255 - np.asarray(Image.open(pixels))).save(pixels)
    assert page.main(["--check"]) == 1
    assert "out of date: docs/results-celeba64-samples.png;" in capsys.readouterr().out


def test_the_page_says_what_was_scored_and_by_which_network(record):
    values = json.loads(record.read_text())
    said = page.tables({"celeba64": [values]}).replace("\n", " ")
    assert "12 generated images against 12 held-out images; floor: 12 training images; L_rec by the stand-in" in said
    gan = {**values, "name": "gan", "evaluation": {**values["evaluation"], "loss_network": None}}
    gan["evaluation"]["protocol"] = "12 generated images against 12 held-out images"  # by --no-floor
    assert "Scores: 12 generated images against 12 held-out images; floor: 12 training images. KL" in (
        page.tables({"celeba64": [gan, {**gan, "evaluation": {**values["evaluation"], "loss_network": None}}]})
    ).replace("\n", " ")
    del values["numbers"]["fid"]
    values["evaluation"]["loss_network"] = "vgg19.safetensors"
    assert "\n\nScores: 12 held-out images. KL," in page.tables({"celeba64": [values]})


def test_the_committed_page_says_what_the_records_say(capsys):
    assert page.main(["--check"]) == 0, capsys.readouterr().out


@pytest.mark.parametrize(
    ("train", "last"),
    [
        ({"steps": 100, "epochs": 5.0}, {"step": 80}),
        ({"steps": None, "epochs": 5.0}, {"step": 3000, "epoch": 3.84}),
    ],
)
def test_a_run_that_ended_early_is_refused(tmp_path, train, last):
    line = {"epoch": 0.1, "seconds": 9.0, "images_per_s": 9.0, "kl": 1.0, **last}
    (tmp_path / "stats.jsonl").write_text(json.dumps(line) + "\n")
    config = {"train": {"minutes": None, "log_every": 10, "batch_size": 64, **train}}
    with pytest.raises(FastvaeError, match=f"its log ends at step {last['step']}"):
        measure.of_log(tmp_path, config)
    ended = {**line, "step": 99 if train["steps"] else 3900, "epoch": 4.994}
    (tmp_path / "stats.jsonl").write_text(json.dumps(ended) + "\n")
    assert measure.of_log(tmp_path, config)["steps"] == ended["step"]
    minutes = {"train": {**config["train"], "minutes": 8.0}}
    (tmp_path / "stats.jsonl").write_text(json.dumps(line) + "\n")
    assert measure.of_log(tmp_path, minutes)["steps"] == last["step"]
