"""`fastvae evaluate` from end to end, with stand-ins for the Inception network."""

import json
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import fastvae
from fastvae.cli import main
from fastvae.data.packed import PackedWriter
from fastvae.evaluate import measure as measuring
from fastvae.evaluate import statistics as statistics_module
from fastvae.runs import open as opening
from tests.conftest import blobs
from tests.evaluate.test_inception import enlarged_by_hand

pytest.importorskip("skimage")


@pytest.fixture
def data(tmp_path):
    with PackedWriter(tmp_path / "set.fvae", image_size=32) as writer:
        writer.append(blobs(40, 32), splits=np.repeat([0, 1], [28, 12]).astype(np.uint8))
    return tmp_path / "set.fvae"


@pytest.fixture
def models(tmp_path):
    """Two VAEs that differ in their weights."""
    for seed, name in enumerate(("first", "second")):
        torch.manual_seed(seed)
        fastvae.VAE(32, width=2, latent=4).save_pretrained(tmp_path / name)
    return [str(tmp_path / "first"), str(tmp_path / "second")]


def evaluate(*arguments) -> int:
    return main(["evaluate", *map(str, arguments), "--device", "cpu"])


def gan(monkeypatch):
    """What `second` is: a generator alone."""
    samplers = opening.load_samplers

    def generator_alone(path, **options):
        found = samplers(path, **options)
        if whole := found.get("second"):
            parts = {"sample": whole.sample, "parameters": whole.decoder.parameters, "run": whole.run}
            found["second"] = SimpleNamespace(image_size=32, latent=4, **parts)
        return found

    monkeypatch.setattr(opening, "load_samplers", generator_alone)


def test_from_end_to_end(data, models, classifier, tmp_path, capsys):
    out = tmp_path / "deep" / "numbers.json"
    flags = ["--data", data, "--count", 12, "--inception", classifier, "--out", out, "--reconstruction-fid"]
    assert evaluate(*models, *flags, "--vgg", "random", "--layers", "relu1_1", "relu2_1") == 0
    said, values = capsys.readouterr().out, json.loads(out.read_text())
    assert values["complete"] and values["layers"] == ["relu1_1", "relu2_1"] and values["machine"]["threads"]
    floor, first, second = values["rows"]
    assert [r["name"] for r in values["rows"]] == ["real images", "first", "second"]
    assert floor["samples"] == 12 and floor["fid"] > 0 and floor["psnr_db"] is None
    for row in (first, second):
        assert row["fid"] > floor["fid"] and 1 <= row["inception_score"] <= 1008 and row["images"] == 12
        assert row["psnr_db"] > 0 and row["ssim"] <= 1 and row["rec"] > 0 and row["reconstruction_fid"] > 0
    assert first["fid"] != second["fid"]
    for words in (
        "Inception Score",
        "+-",
        "PSNR, dB",
        "L_rec",
        "biased upward",
        "12 held-out images",
        f"{out} written",
    ):
        assert words in said


@pytest.mark.parametrize("protocol", ["paper", "usual"])
def test_without_the_row_of_real_images_the_others_are_the_same(
    data, models, features_alone, tmp_path, capsys, protocol
):
    found = {}
    for flag in ("--floor", "--no-floor"):
        out = tmp_path / f"{flag}.json"
        flags = ["--data", data, "--protocol", protocol, "--count", 12, "--inception", features_alone, "--vgg", "none"]
        assert evaluate(models[0], *flags, "--reconstruction-fid", "--out", out, flag) == 0
        found[flag] = json.loads(out.read_text())
    said = capsys.readouterr().out
    assert said.count("floor: ") == 1 and said.count("The row of real images") == 1
    (with_floor, without) = (found[flag]["rows"] for flag in ("--floor", "--no-floor"))
    assert without == with_floor[1:] and without[0]["reconstruction_fid"] > 0


def test_fid_of_the_floor_by_another_way(data, models, features_alone, tmp_path, capsys):
    """Enlarged by hand, numpy's covariances, scipy's root."""
    linalg = pytest.importorskip("scipy.linalg")
    out = tmp_path / "numbers.json"
    flags = ["--data", data, "--count", 12, "--inception", features_alone, "--vgg", "none", "--out", out]
    assert evaluate(models[0], *flags) == 0
    said, floor = capsys.readouterr().out, json.loads(out.read_text())["rows"][0]
    assert "No Inception Score: features.pt is not the standard file" in said and floor["inception_score"] is None
    assert "not known to be FID's Inception network" in said and "L_rec  " not in said
    plan = fastvae.evaluate.protocol.plan(fastvae.data.packed.PackedImages.open(data), "paper", 12, 0)
    means, covariances = [], []
    for indices in (plan.floor, plan.reference):
        x = np.stack([[enlarged_by_hand(im[..., c] / 128 - 1, 299) for c in range(3)] for im in blobs(40, 32)[indices]])
        features = torch.nn.functional.adaptive_avg_pool2d(torch.from_numpy(x), [2, 4]).flatten(1).numpy()
        means.append(features.mean(0))
        covariances.append(np.cov(features, rowvar=False) + 1e-10 * np.eye(24))
    root = linalg.sqrtm(covariances[0] @ covariances[1]).real
    expected = np.square(means[0] - means[1]).sum() + np.trace(covariances[0] + covariances[1] - 2 * root)
    assert floor["fid"] == pytest.approx(expected, rel=1e-3)


def test_real_images_pass_once_and_samples_repeat(data, models, classifier, tmp_path, monkeypatch):
    passed = []
    counted = statistics_module.statistics

    def counting(network, batches, count, words, **options):
        passed.append(words)
        return counted(network, batches, count, words, **options)

    monkeypatch.setattr(statistics_module, "statistics", counting)
    flags = ["--data", data, "--count", 12, "--inception", classifier, "--vgg", "none"]
    results = []
    for name, more in {"a": [], "b": [], "c": ["--seed", "1"]}.items():
        assert evaluate(models[0], *flags, *more, "--out", tmp_path / f"{name}.json") == 0
        results.append(json.loads((tmp_path / f"{name}.json").read_text())["rows"])
    assert results[0] == results[1] != results[2]
    # All 12 held-out images are the reference, whatever the seed; the training images of the floor are others.
    assert passed == ["reference", "real images", "real images"]
    kept = sorted((tmp_path / "cache" / "inception").iterdir())
    assert len(kept) == 3
    for path in kept:
        path.write_bytes(b"damaged")
    assert evaluate(models[0], *flags, "--out", tmp_path / "d.json") == 0
    assert json.loads((tmp_path / "d.json").read_text())["rows"] == results[0] and len(passed) == 5


def test_a_gan_has_the_first_two_numbers(data, models, classifier, tmp_path, monkeypatch, capsys):
    gan(monkeypatch)
    out = tmp_path / "numbers.json"
    flags = ["--data", data, "--count", 12, "--inception", classifier, "--vgg", "none", "--out", out]
    assert evaluate(*models, *flags) == 0
    _, first, second = json.loads(out.read_text())["rows"]
    assert first["psnr_db"] and second["psnr_db"] is None and second["fid"] > 0 and second["inception_score"] >= 1
    assert "No reconstructions by second: a GAN has no encoder" in capsys.readouterr().out
    without = [*flags, "--inception", "none"]
    assert evaluate(models[1], *without) == 2
    assert "these runs have no encoder" in capsys.readouterr().err


def test_the_usual_protocol_and_no_inception(data, models, classifier, tmp_path, capsys):
    flags = ["--data", data, "--count", 16, "--protocol", "usual", "--vgg", "none", "--out", tmp_path / "n.json"]
    assert evaluate(models[0], *flags, "--inception", classifier) == 0
    said = capsys.readouterr().out
    assert "16 generated images against all 28 training images; floor: 12 held-out images" in said
    assert "That row is of 12 images, not 16" in said
    assert evaluate(models[0], *flags, "--inception", "none") == 0
    said = capsys.readouterr().out
    assert "FID" not in said and "PSNR" in said and "real images" not in said
    assert "usual: 12 held-out images, reconstructed" in said and "generated" not in said


def test_stopped_it_keeps_what_it_has(data, models, classifier, tmp_path, monkeypatch, capsys):
    close = measuring.closeness

    def stopped(vae, images, indices, network, words):
        if words.startswith("second"):  # what is done is on the disk already: it might be a power cut
            so_far = json.loads((tmp_path / "numbers-incomplete.json").read_text())
            assert not so_far["complete"] and [r["name"] for r in so_far["rows"]] == ["real images", "first"]
            raise KeyboardInterrupt
        return close(vae, images, indices, network, words)

    monkeypatch.setattr(measuring, "closeness", stopped)
    out = tmp_path / "numbers.json"
    flags = ["--data", data, "--count", 12, "--inception", classifier, "--vgg", "none", "--out", out]
    out.write_text("an earlier call's")
    assert evaluate(*models, *flags) == 130
    assert out.read_text() == "an earlier call's"
    values = json.loads((tmp_path / "numbers-incomplete.json").read_text())
    assert not values["complete"] and [r["name"] for r in values["rows"]] == ["real images", "first"]
    assert "incomplete, as it was stopped" in capsys.readouterr().out
    monkeypatch.setattr(measuring, "closeness", close)
    assert evaluate(*models, *flags) == 0
    assert json.loads(out.read_text())["complete"] and not (tmp_path / "numbers-incomplete.json").exists()


def test_images_smaller_than_a_window_or_a_layer_s_poolings(tmp_path, capsys):
    fastvae.VAE(8, width=2, latent=4).save_pretrained(tmp_path / "small")
    with PackedWriter(tmp_path / "small.fvae", image_size=8) as writer:
        writer.append(blobs(32, 8), splits=np.repeat([0, 1], [20, 12]).astype(np.uint8))
    flags = ["--data", tmp_path / "small.fvae", "--inception", "none", "--vgg", "random", "--out", tmp_path / "n.json"]
    assert evaluate(tmp_path / "small", *flags) == 2
    assert "needs images of 16x16 or more for relu5_1; these have 8x8: give other --layers" in capsys.readouterr().err
    assert evaluate(tmp_path / "small", *flags, "--layers", "relu1_1", "relu2_1") == 0
    row = json.loads((tmp_path / "n.json").read_text())["rows"][0]
    assert row["ssim"] is None and row["psnr_db"] > 0 and row["rec"] > 0
    assert "No SSIM: its window is 11 pixels wide" in capsys.readouterr().out


def test_runs_of_one_name_and_of_other_sizes(data, models, tmp_path, capsys):
    fastvae.VAE(16, width=2, latent=4).save_pretrained(tmp_path / "small")
    flags = ["--data", data, "--count", 12, "--vgg", "none", "--inception", "none", "--out", tmp_path / "n.json"]
    assert evaluate(models[0], models[0], *flags) == 0
    names = [r["name"] for r in json.loads((tmp_path / "n.json").read_text())["rows"]]
    assert names == ["first", f"{models[0]}: first"]
    assert evaluate(models[0], tmp_path / "small", *flags) == 2
    said = capsys.readouterr().err
    assert "first takes 32x32" in said and "small takes 16x16 pixels; give runs of one image size" in said
    assert evaluate(tmp_path / "small", *flags) == 2
    assert "small makes images of 16x16 pixels and" in capsys.readouterr().err


@pytest.mark.parametrize(
    "flags, code, words",
    [
        (["--out", "numbers.txt"], 2, "--out must end in .json"),
        (["--out", "/dev/null/numbers.json"], 2, "/dev/null is not a folder that can be written into"),
        (["--count", "13"], 2, "it has 12 held-out images; give --count 12"),
        (["--data", "/nowhere.fvae"], 1, "/nowhere.fvae does not exist"),
        (["--inception", "/nowhere.pt"], 1, "--inception /nowhere.pt cannot be read"),
        (["--vgg", "/nowhere.safetensors"], 1, "--vgg none"),
        (["--layers", "relu9_9"], 2, "relu1_1, relu2_1"),
    ],
)
def test_what_is_wrong_is_said_before_any_work(data, models, tmp_path, capsys, monkeypatch, flags, code, words):
    monkeypatch.setattr(measuring, "measure", None)
    right = ["--data", data, "--count", 12, "--vgg", "random", "--layers", "relu1_1", "--inception", "none"]
    assert evaluate(models[0], *right, "--out", tmp_path / "n.json", *flags) == code
    assert words in capsys.readouterr().err


def test_no_such_run(data, tmp_path, capsys):
    assert evaluate(tmp_path / "nothing", "--data", data) == 1
    assert "nothing" in capsys.readouterr().err


def test_without_scikit_image_it_says_what_to_install(data, models, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "skimage.metrics", None)
    assert evaluate(models[0], "--data", data, "--count", 12, "--vgg", "none", "--inception", "none") == 1
    assert "pip install -e '.[eval]'" in capsys.readouterr().err


def test_help_does_not_wait_for_torch():
    ask = "import sys, fastvae.cli.evaluate; print([name for name in ('torch', 'skimage') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True).stdout == "[]\n"
