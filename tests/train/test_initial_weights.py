"""`--init`: a new run takes what fits of another's weights, says what that was, and then needs it no more."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import fastvae
from fastvae.cli import main
from fastvae.data.packed import PackedWriter
from fastvae.hub import download
from fastvae.train.checkpoint_files import latest, read_metadata
from tests.conftest import blobs

TINY = ["--image-size", "32", "--width", "2", "--latent", "4", "--batch-size", "8", "--held-out", "8", "--seed", "5"]
TINY += ["--precision", "fp32", "--device", "cpu", "--compile", "off", "--steps", "1", "--balance-every", "0"]
TINY += ["--ema", "0"]
VGG = ["--vgg", "random", "--layers", "relu1_1"]


@pytest.fixture(scope="module")
def source(packed, tmp_path_factory) -> Path:
    """Two steps of a VAE-WGAN with an average of its weights; checkpoints of steps 1 and 2."""
    run = tmp_path_factory.mktemp("source") / "run"
    flags = [*TINY, *VGG, "--steps", "2", "--seed", "1", "--ema", "0.9", "--lr", "0.01", "--checkpoint-every", "1"]
    assert main(["train", "celeba64-literal", "--data", str(packed.path), "--out", str(run), *flags]) == 0
    return run


@pytest.fixture
def start(packed, tmp_path):
    """start("celeba64-plain", source, ...) -> exit code; the run is tmp_path / "run"."""

    def run(recipe: str, source: object, *flags: str) -> int:
        where = ["--data", str(packed.path), "--out", str(tmp_path / "run")]
        return main(["train", recipe, *where, *TINY, "--init", str(source), *flags])

    return run


def weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    return load_file(checkpoint / "model.safetensors")


def first(run: Path) -> dict[str, torch.Tensor]:
    return weights(run / "checkpoints" / "step-00000000")


def is_average(found: dict[str, torch.Tensor], source: dict[str, torch.Tensor], prefix: str = "") -> bool:
    """Whether all of encoder and decoder are the source's average, which is not its weights."""
    names = [key.removeprefix("ema.") for key in source if key.startswith(("ema.encoder.", "ema.decoder."))]
    assert any(not torch.equal(source[name], source[f"ema.{name}"]) for name in names)
    return all(torch.equal(found[f"{prefix}{name}"], source[f"ema.{name}"]) for name in names)


def test_all_networks_start_as_the_source_ends(source, start, tmp_path, caplog):
    assert start("celeba64-literal", source, *VGG, "--ema", "0.9") == 0
    found, there = first(tmp_path / "run"), weights(latest(source))
    assert is_average(found, there) and is_average(found, there, "ema.")
    assert all(torch.equal(found[key], t) for key, t in there.items() if key.startswith("critic."))
    assert found["ema.vae"] == 0
    said = [record.message.strip() for record in caplog.records]
    assert f"starting from {source} after 2 steps, the moving average of its weights" in said
    assert {"encoder: all 49 tensors", "decoder: all 34 tensors", "critic: all 47 tensors"} <= set(said)


def test_optimisers_noise_and_order_are_those_of_a_new_run(source, start, packed, tmp_path):
    assert start("celeba64-plain", source) == 0
    flags = ["--data", str(packed.path), "--out", str(tmp_path / "other"), *TINY, "--checkpoint-every", "1"]
    assert main(["train", "celeba64-plain", *flags]) == 0
    ours, theirs = (load_file(latest(tmp_path / r) / "optimizer.safetensors") for r in ("run", "other"))
    assert torch.equal(ours["noise"], theirs["noise"]) and ours["vae.0.step"] == 1
    before = load_file(tmp_path / "run" / "checkpoints" / "step-00000000" / "optimizer.safetensors")
    assert before.keys() == {"noise"}


FORMS = {
    "run": lambda run, tmp_path: run,
    "checkpoints": lambda run, tmp_path: run / "checkpoints",
    "checkpoint": lambda run, tmp_path: run / "checkpoints" / "step-00000001",
    "state.json": lambda run, tmp_path: run / "checkpoints" / "step-00000001" / "state.json",
    "optimizer.safetensors": lambda run, tmp_path: run / "checkpoints" / "step-00000001" / "optimizer.safetensors",
    "model.safetensors": lambda run, tmp_path: run / "checkpoints" / "step-00000001" / "model.safetensors",
    "saved": lambda run, tmp_path: fastvae.load(run).save_pretrained(tmp_path / "saved") or tmp_path / "saved",
    "copy": lambda run, tmp_path: shutil.copy(latest(run) / "model.safetensors", tmp_path / "copy.safetensors"),
    "hub": lambda run, tmp_path: "somebody/faces",
}


@pytest.mark.parametrize("form", FORMS)
def test_whatever_load_and_resume_accept_is_a_source(source, start, tmp_path, monkeypatch, form):
    given = FORMS[form](source, tmp_path)
    monkeypatch.setattr(download, "fetch", lambda name: latest(source))
    assert start("celeba64-plain", given) == 0
    step = "step-00000001" if "step-00000001" in str(given) else "step-00000002"
    assert is_average(first(tmp_path / "run"), weights(source / "checkpoints" / step))
    record = json.loads((tmp_path / "run" / "config.json").read_text())["initial_weights"]
    assert record["source"] == str(given) and len(record["sha256"]) == 64


def test_another_size_takes_what_fits_and_says_what_does_not(source, start, tmp_path, capsys):
    larger = tmp_path / "larger.fvae"
    with PackedWriter(larger, image_size=64) as writer:
        writer.append(blobs(12, 64), splits=(np.arange(12) >= 8).astype(np.uint8))
    assert start("celeba64-plain", source, "--latent", "5", "--data", str(larger), "--image-size", "64") == 0
    found, there = first(tmp_path / "run"), weights(latest(source))
    said = capsys.readouterr().err
    assert "encoder: 45 of 64 tensors; initialised from the seed: stages.3.0.weight (missing), " in said
    linear = "linear.weight ([256, 5] here, [128, 4] there)"
    assert f"decoder: 32 of 49 tensors; initialised from the seed: {linear}, " in said
    assert "not taken: critic" in said
    # The decoder's stages are numbered from the smallest map, so that the last two of both are stages 0 and 1, 1 and 2.
    names = {key: re.sub(r"decoder.stages.(\d)", lambda m: f"decoder.stages.{int(m[1]) - 1}", key) for key in found}
    same = {key for key, name in names.items() if torch.equal(found[key], there.get(f"ema.{name}", torch.empty(0)))}
    left = ("encoder.mean", "encoder.log_var", "encoder.stages.3", "decoder.linear", "decoder.stages.0")
    assert same == {key for key in found if not key.startswith(left)}


def test_each_view_starts_from_a_single_model_and_that_from_a_view(source, start, tmp_path, capsys):
    layers = ["--layers", "relu1_1", "relu2_1"]
    assert start("celeba64-multiview", source, "--critic", "balanced", "--vgg", "random", *layers) == 0
    found, there = first(tmp_path / "run"), weights(latest(source))
    assert is_average(found, there, "relu1_1.") and is_average(found, there, "relu2_1.")
    views = shutil.move(tmp_path / "run", tmp_path / "views")
    assert start("celeba64-plain", views) == 1
    assert f"holds the views relu1_1, relu2_1: name one, as in {views / 'relu1_1'}" in capsys.readouterr().err
    assert start("celeba64-plain", views / "relu9_1") == 1
    assert "has no view 'relu9_1'" in capsys.readouterr().err
    assert start("celeba64-plain", views / "relu2_1") == 0
    there = weights(latest(views))
    found = first(tmp_path / "run")
    assert all(torch.equal(t, there[f"relu2_1.{key}"]) for key, t in found.items())


def test_a_source_of_which_nothing_fits_is_refused(source, start, tmp_path, capsys):
    assert start("celeba64-dcgan", source) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert f"nothing of {source} fits this run: generator: none of 17 tensors" in said
    assert said.endswith("not taken: critic, decoder, encoder") and "initialised" not in said
    assert not (tmp_path / "run").exists()


def test_a_source_with_nan_is_refused_and_named(source, start, tmp_path, capsys):
    file = Path(shutil.copy(latest(source) / "model.safetensors", tmp_path / "model.safetensors"))
    tensors = load_file(file)
    tensors["ema.decoder.linear.bias"][0] = float("nan")
    save_file(tensors, file, {"fastvae": json.dumps(read_metadata(file))})
    assert start("celeba64-plain", file) == 1
    assert f"{file} holds NaN or infinity in decoder.linear.bias" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_resumed_run_does_not_need_its_source(source, packed, tmp_path, capsys):
    copy = shutil.copytree(source, tmp_path / "source")
    straight, broken = tmp_path / "straight", tmp_path / "broken"
    flags = ["--data", str(packed.path), *TINY, "--steps", "2", "--init", str(copy)]
    assert main(["train", "celeba64-plain", "--out", str(straight), *flags]) == 0
    shutil.rmtree(copy)
    shutil.copytree(straight, broken)
    shutil.rmtree(latest(broken))
    assert latest(broken).name == "step-00000000"
    assert main(["train", "--resume", str(broken)]) == 0
    expected, found = weights(latest(straight)), weights(latest(broken))
    assert all(torch.equal(t, found[key]) for key, t in expected.items())
    shutil.rmtree(broken / "checkpoints")
    assert main(["train", "--resume", str(broken)]) == 1
    assert "stopped before its first checkpoint" in capsys.readouterr().err


def test_a_resumed_run_has_weights_of_its_own(source, capsys):
    assert main(["train", "--resume", str(source), "--init", str(source)]) == 2
    assert "--init cannot be combined with --resume" in capsys.readouterr().err


def test_nothing_is_private_in_a_saved_model(source, start, tmp_path):
    assert start("celeba64-plain", source) == 0
    fastvae.load(tmp_path / "run").save_pretrained(tmp_path / "saved")
    card = (tmp_path / "saved" / "README.md").read_text()
    assert "initial weights | `run`, SHA-256" in card
    assert str(source.parent) not in card + json.dumps(read_metadata(tmp_path / "saved" / "model.safetensors"))


def test_a_dry_run_reads_the_source(source, start, tmp_path, capsys):
    assert start("celeba64-plain", source, "--dry-run") == 0
    assert f'"source": "{source}"' in capsys.readouterr().out
    assert start("celeba64-plain", tmp_path / "nowhere", "--dry-run") == 1
