"""Records of complete runs, and the page that is made of them."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.results import attributes, commands, measure, page, pictures
from bench.results.curves import curves
from fastvae.attributes.table1 import table1
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


@pytest.fixture(scope="module")
def recorded(run, tmp_path_factory):
    """A folder with the record of the session's tiny run, for tests to copy."""
    folder = tmp_path_factory.mktemp("recorded")
    data = folder / "set.fvae"
    with PackedWriter(data, image_size=32) as writer:
        writer.append(blobs(32, 32), splits=np.repeat([0, 1], [20, 12]).astype(np.uint8))
    network = folder / "inception.pt"
    standins.save(standins.FeaturesAlone(), network)
    flags = ["--data", str(data), "--count", "12", "--vgg", "random", "--inception", str(network), "--device", "cpu"]
    flags += ["--name", "trial", "--pictures", "--out", str(folder / "records")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inception, "FEATURES", standins.FEATURES)
        patch.setenv("FASTVAE_CACHE", str(folder / "cache"))
        assert measure.main([str(run), *flags]) == 0
    return folder


@pytest.fixture
def record(recorded, tmp_path):
    """A copy of it."""
    shutil.copytree(recorded / "records", tmp_path / "records")
    return tmp_path / "records" / "trial.json"


def test_a_record_holds_scores_curves_and_no_path_of_this_machine(record, recorded, run):
    values = json.loads(record.read_text())
    assert (values["name"], values["steps"], values["images"]) == ("trial", 3, 24)
    numbers = values["numbers"]
    assert {"fid", "reconstruction_fid", "psnr_db", "ssim", "rec", "kl", "held_out_sharpness"} <= numbers.keys()
    assert all(math.isfinite(n) for n in numbers.values()) and values["real_images"]["fid"] > 0
    lines = [json.loads(line) for line in (run / "stats.jsonl").read_text().splitlines()]
    assert values["curves"]["kl"]["curve_value"][-1] == pytest.approx(lines[-2]["kl"], rel=1e-4)
    assert values["seconds"] == max(line.get("seconds", 0) for line in lines)
    assert values["config"]["data"] == "blobs.fvae"
    assert str(recorded) not in record.read_text() and str(Path(run).parent) not in record.read_text()


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
    by_vgg = {**values, "evaluation": {**values["evaluation"], "loss_network": "vgg19.safetensors"}}
    said = page.tables({"celeba64": [values, by_vgg]}).replace("\n", " ")
    assert "L_rec of trial by the stand-in" in said
    gan["evaluation"]["protocol"] = "12 generated images against 12 held-out images"  # by --no-floor
    assert "Scores: 12 generated images against 12 held-out images; floor: 12 training images. KL" in (
        page.tables({"celeba64": [gan, {**gan, "evaluation": {**values["evaluation"], "loss_network": None}}]})
    ).replace("\n", " ")
    del values["numbers"]["fid"]
    values["evaluation"]["loss_network"] = "vgg19.safetensors"
    assert "\n\nScores: 12 held-out images. KL," in page.tables({"celeba64": [values]})


def test_runs_of_one_layer_are_a_section_of_their_own_and_threads_are_said(record):
    values = json.loads(record.read_text())
    values["machine"] |= {"cpu": "AVX2", "gpu": None, "threads": 1}
    alone = {**values, "name": "alone", "config": {**values["config"], "recipe": "celeba64-relu2_1"}}
    ablation = {**values, "name": "ablation", "config": {**values["config"], "recipe": "celeba64-no-rec"}}
    for each in (alone, ablation):
        (record.parent / f"{each['name']}.json").write_text(json.dumps(each))
    sets = page.by_set(record.parent)
    assert {name: [r["name"] for r in records] for name, records in sets.items()} == {
        "celeba64": ["trial", "ablation"],
        "celeba64-layers": ["alone"],
    }
    text = page.tables(sets)
    assert "## celeba64: one layer alone (Fig. 7)\n" in text and "| AVX2, 1 thread, fp32 |" in text
    values["machine"] |= {"gpu": "NVIDIA H200"}
    assert "| NVIDIA H200, fp32 |" in page.tables({"celeba64": [values]})


def recognised(name: str, accuracy: float) -> dict:
    fit = {"c": 0.01, "choosing_accuracy": 0.8, "converged": True, "seconds": 1.0}
    shares = {"train_share": 0.4, "test_share": 0.4, "majority_accuracy": 0.6, "balanced_accuracy": 0.7}
    return {"name": name, "accuracy": accuracy, **shares, **fit}


def test_table_1_is_beside_the_paper_s(tmp_path):
    found = [recognised("Male", 0.9), recognised("Wearing_Hat", 0.95)]
    record = {
        **{"complete": True, "celeba": True, "runs": ["runs a", "b"], "data": "set.fvae", "excluded": {}},
        **{"images": {"train": 2000, "choose": 30, "test": 40}, "features": {"count": 8, "from": ["runs a", "b"]}},
        "attributes": found,
    }
    (tmp_path / "celeba64.json").write_text(json.dumps(record))
    (found,) = attributes.records(tmp_path).values()
    section = attributes.section("celeba64", found)
    assert section.startswith(
        "## celeba64: attributes (Table 1)\n\n|  | accuracy | balanced | majority | paper: VAE-WGAN"
    )
    paper = table1()["Male"]
    columns = [paper[system] for system in ("VAE-WGAN", "VAE-123", "VAE-345", "VGG-FC")]
    assert f"| Male | 90.0 | 70.0 | 60.0 | {' | '.join(map(str, columns))} |" in section
    assert "| average | 92.5 | 70.0 | 60.0 |" in section and "2,000 training images" in section.replace("\n", " ")
    assert section.endswith("    fastvae attributes 'runs a' b --data set.fvae")
    (tmp_path / "celeba64.json").write_text(json.dumps(record | {"complete": False}))
    with pytest.raises(FastvaeError, match="attributes/celeba64 is of a recognition that was stopped"):
        attributes.records(tmp_path)


def test_attributes_are_drawn_until_they_change(checkout, capsys):
    shares = {"train": 2000, "choose": 30, "test": 40}
    record = {"complete": True, "celeba": True, "runs": ["a"], "data": "set.fvae", "excluded": {}, "images": shares}
    record |= {"features": {"count": 8, "from": ["a"]}, "attributes": [recognised("Male", 0.9)]}
    path = page.FOLDER / "attributes" / "celeba64.json"
    path.parent.mkdir()
    path.write_text(json.dumps(record))
    assert page.main([]) == 0 and page.main(["--check"]) == 0
    assert "](results-celeba64-attributes.png)" in (checkout / "docs" / "results.md").read_text()
    assert Image.open(checkout / "docs" / "results-celeba64-attributes.png").width > 500
    record["attributes"] = [recognised("Male", 0.8)]
    path.write_text(json.dumps(record))
    assert page.main(["--check"]) == 1 and "docs/results-celeba64-attributes.png" in capsys.readouterr().out


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
    with pytest.raises(FastvaeError, match=r"it was to take .* or 8 minutes"):
        measure.of_log(tmp_path, minutes)
    (tmp_path / "stats.jsonl").write_text(json.dumps({**line, "seconds": 479.9}) + "\n")
    assert measure.of_log(tmp_path, minutes)["steps"] == last["step"]


def test_images_are_of_as_many_processes_as_each_part_of_a_run_had(tmp_path):
    parts = [{"step": 10}, {"step": 30, "ranks": 2}, {"step": 40, "ranks": 4}]
    lines = [{"epoch": 1.0, "seconds": 9.0, "images_per_s": 9.0, "kl": 1.0, **part} for part in parts]
    (tmp_path / "stats.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    train = {"minutes": None, "steps": 40, "epochs": 5.0, "log_every": 10, "batch_size": 8}
    assert measure.of_log(tmp_path, {"train": train})["images"] == 8 * (10 + 2 * 20 + 4 * 10)


def test_the_commands_of_a_run_are_all_that_it_takes_to_make_it_again(tmp_path):
    lines = [{"step": 10, "images_per_s": 9.0}, {"step": 20, "images_per_s": 9.0, "ranks": 2}]
    (tmp_path / "stats.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "mine.py").touch()
    begun = ["/a/bin/fastvae", "train", "demo", "--data", "faces", "--out", str(tmp_path)]
    again = ["/a/fastvae/__main__.py", "train", "--resume", str(tmp_path)]
    resumed = [{"step": 5, "command": again}, {"step": 10, "command": [*again, "--minutes", "30"]}]
    made = commands.of_run(tmp_path, {"command": begun, "resumed": resumed})
    first, second = made.split(" && ")
    assert first == f"fastvae train demo --data faces --out {tmp_path.name}"
    assert second == f"torchrun --nproc-per-node 2 -m fastvae train --resume {tmp_path.name} --minutes 30"
    assert commands.of_run(tmp_path, {"command": [str(tmp_path / "mine.py"), "1"]}) == "python mine.py 1"
    with pytest.raises(FastvaeError, match="does not say by which command"):
        commands.of_run(tmp_path, {})


def test_the_record_of_another_run_is_not_replaced(record, tmp_path, capsys):
    before = json.loads(record.read_text())
    measure._check_same_run(record, before["command"])
    with pytest.raises(FastvaeError, match="is the record of another run"):
        measure._check_same_run(record, before["command"] + " --minutes 30")
    measure._check_same_run(tmp_path / "new.json", "any")


def test_pictures_of_a_record_go_with_it(record):
    pictures.forget("other", record.parent)
    assert len(list(record.parent.glob("trial-*.png"))) == 2
    pictures.forget("trial", record.parent)
    assert list(record.parent.glob("*.png")) == []


def test_a_sheet_says_the_same_z_only_of_models_of_one_latent_size(record):
    values = json.loads(record.read_text())
    larger = {**values, "config": {**values["config"], "model": {**values["config"]["model"], "latent": 99}}}
    path = record.parent / "trial-samples.png"
    assert "among models of one latent size" in pictures._caption([(values, path), (larger, path)])
    assert pictures._caption([(values, path), (values, path)]).endswith("in every panel.")


def test_distances_by_different_networks_are_not_shown_together(record):
    values = json.loads(record.read_text())
    fewer = {**values, "name": "few", "numbers": {**values["numbers"], "samples": 11}}
    with pytest.raises(FastvaeError, match="trial, few: their FIDs"):
        page.tables({"celeba64": [values, fewer]})
