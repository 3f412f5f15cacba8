"""Whole runs: what they leave behind, resuming, stopping, and diverging."""

import functools
import importlib.util
import json
import re
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from fastvae.cli import main
from fastvae.objectives.vae_wgan import VaeWgan
from fastvae.recipes import RECIPES
from fastvae.train import log
from fastvae.train.checkpoint_files import checkpoints, latest


def stats(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "stats.jsonl").read_text().splitlines()]


def tensors(run: Path) -> dict[str, torch.Tensor]:
    newest = latest(run)
    return load_file(newest / "model.safetensors") | load_file(newest / "optimizer.safetensors")


def test_a_run_leaves_everything(train, tmp_path, capsys):
    assert train("--steps", "6", "--pictures-every", "4", "--checkpoint-every", "2") == 0
    run = tmp_path / "run"
    lines = stats(run)
    losses = [line for line in lines if "rec" in line]
    assert [line["step"] for line in losses] == [1, 2, 3, 4, 5, 6]
    assert {"kl", "rec", "critic", "lr", "images_per_s", "epoch", "seconds"} <= losses[0].keys()
    assert [line["step"] for line in lines if "gan_to_rec" in line] == [4]
    assert [line["step"] for line in lines if "held_out_psnr_db" in line] == [0, 6]
    config = json.loads((run / "config.json").read_text())
    assert config["objective"]["name"] == "vae_wgan" and config["train"]["compile"] in ("on", "off")
    assert json.loads((run / "environment.json").read_text())["torch"] == torch.__version__
    assert [c.name for c in checkpoints(run / "checkpoints")] == ["step-00000004", "step-00000006"]
    for name in ("samples-00000004", "samples-00000006", "reconstructions-00000004", "reconstructions-00000006"):
        with Image.open(run / "pictures" / f"{name}.png") as picture:
            assert picture.mode == "RGB" and min(picture.size) > 32
    if importlib.util.find_spec("tensorboard"):
        assert list((run / "tensorboard").glob("events.out.tfevents.*"))
    progress = capsys.readouterr().err
    assert "images/s" in progress and "left" in progress and "critic" in progress


def test_it_learns(train, tmp_path):
    assert train("--steps", "40", "--lr", "3e-3", "--lr-decay", "1", "--width", "4") == 0
    lines = stats(tmp_path / "run")
    first, last = lines[0], lines[-1]
    assert last["held_out_psnr_db"] > first["held_out_psnr_db"] + 3
    assert last["held_out_rec"] < first["held_out_rec"] / 2


@pytest.mark.parametrize("saved_by", ["this version", "one that had no ranks, resumed by torchrun with one"])
def test_resuming_is_bit_exact_in_the_middle_of_an_epoch(train, tmp_path, monkeypatch, saved_by):
    # 40 training images in batches of 8: five steps an epoch, so step 7 is inside the second.
    straight, broken = tmp_path / "straight", tmp_path / "broken"
    assert train("--steps", "12", "--out", str(straight)) == 0
    assert train("--steps", "7", "--out", str(broken)) == 0
    if saved_by != "this version":
        file = latest(broken) / "state.json"
        state = json.loads(file.read_text())
        assert (state.pop("epoch"), state.pop("images"), state.pop("ranks")) == (1, 16, 1)
        file.write_text(json.dumps(state))
        for name, value in {"WORLD_SIZE": "1", "RANK": "0", "LOCAL_RANK": "0"}.items():
            monkeypatch.setenv(name, value)
    assert train("--resume", str(broken), "--steps", "12") == 0
    assert not torch.distributed.is_initialized()
    expected, found = tensors(straight), tensors(broken)
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[k], found[k]) for k in expected)

    def losses(run):
        return {s["step"]: (s["kl"], s["rec"], s["critic"], s["lr"]) for s in stats(run) if "rec" in s}

    assert losses(straight) == losses(broken)


def test_a_run_goes_on_with_its_own_loader(train, tmp_path):
    assert train("--steps", "1") == 0
    run = tmp_path / "run"
    assert json.loads((run / "config.json").read_text())["train"]["loader"] == "packed"
    assert train("--resume", str(run), "--steps", "2", "--loader", "pillow") == 2
    assert train("--resume", str(run), "--steps", "2") == 0


def test_noise_of_another_kind_of_device_is_drawn_anew(train, tmp_path, caplog):
    assert train("--steps", "2") == 0
    file = latest(tmp_path / "run") / "optimizer.safetensors"
    save_file({**load_file(file), "noise": torch.zeros(16, dtype=torch.uint8)}, file)  # as long as a GPU's
    assert train("--resume", str(tmp_path / "run"), "--steps", "3") == 0
    assert "another kind of device" in caplog.text


def test_resuming_drops_what_was_logged_after_the_checkpoint(train, tmp_path):
    assert train("--steps", "4", "--checkpoint-every", "2", "--keep-checkpoints", "9") == 0
    run = tmp_path / "run"
    for file in sorted((run / "checkpoints" / "step-00000004").iterdir()):
        file.unlink()
    (run / "checkpoints" / "step-00000004").rmdir()
    with (run / "stats.jsonl").open("a") as file:
        file.write('{"step": 5, "re')
    assert train("--resume", str(run)) == 0
    steps = [line["step"] for line in stats(run) if "rec" in line]
    assert steps == [1, 2, 3, 4]


def test_learning_rate_halves_after_every_epoch(train, tmp_path):
    assert train("--epochs", "3") == 0
    rates = [line["lr"] for line in stats(tmp_path / "run") if "lr" in line]
    assert rates == [5e-4] * 5 + [2.5e-4] * 5 + [1.25e-4] * 5


@pytest.mark.parametrize("recipe", ["celeba64-dfc-123", "celeba64-plain"])
def test_other_objectives_train_by_the_same_trainer(packed, tmp_path, recipe):
    run = tmp_path / "run"
    vgg = ["--vgg", "random", "--layers", "relu1_1"] if "dfc" in recipe else []
    flags = ["--image-size", "32", "--width", "2", "--latent", "4", "--batch-size", "8", "--steps", "3"]
    flags += ["--precision", "fp32", "--device", "cpu"]
    assert main(["train", recipe, "--data", str(packed.path), "--out", str(run), *vgg, *flags]) == 0
    assert not any(k.startswith("critic") for k in tensors(run))


def test_measuring_the_balance_changes_nothing(train, tmp_path):
    runs = [tmp_path / name for name in ("with", "without")]
    for run, every in zip(runs, ("1", "0"), strict=True):
        assert train("--steps", "4", "--out", str(run), "--balance-every", every) == 0
    first, second = map(tensors, runs)
    assert all(torch.equal(first[k], second[k]) for k in first)


def test_a_continuation_is_continued_with_its_own_flags(train, tmp_path):
    run = tmp_path / "run"
    assert train("--steps", "2") == 0
    assert train("--resume", str(run), "--steps", "6", "--minutes", "1e-9") == 0
    assert stats(run)[-1]["step"] == 2
    assert train("--resume", str(run), "--minutes", "9") == 0
    assert stats(run)[-1]["step"] == 6


@pytest.mark.gpu
def test_on_a_gpu_compiled_in_bfloat16(train, tmp_path):
    for device in ("cpu", "cuda"):
        precision = {"cpu": "fp32", "cuda": "bf16"}[device]
        flags = ["--device", device, "--precision", precision, "--out", str(tmp_path / device)]
        assert train("--steps", "2", *flags, "--compile", "on" if device == "cuda" else "off") == 0
    assert train("--resume", str(tmp_path / "cuda"), "--steps", "4") == 0
    for gpu, cpu in zip(stats(tmp_path / "cuda")[:2], stats(tmp_path / "cpu")[:2], strict=True):
        for name in cpu.keys() & {"rec", "held_out_rec"}:
            assert gpu[name] == pytest.approx(cpu[name], rel=0.05)


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_and_is_named(train, tmp_path, monkeypatch, capsys, poison):
    whole = VaeWgan.loss

    def loss(self, images, noise):
        total, terms = whole(self, images, noise)
        self.calls = getattr(self, "calls", 0) + 1
        # The window of log lines holds steps 5 to 8.
        return (total * poison, terms | {"rec": terms["rec"] * poison}) if self.calls == 6 else (total, terms)

    monkeypatch.setattr(VaeWgan, "loss", loss)
    assert train("--steps", "20", "--log-every", "4", "--balance-every", "0", "--checkpoint-every", "2") == 1
    message = capsys.readouterr().err.splitlines()[-1]
    assert "'rec'" in message and "step 6" in message and "step-00000004" in message
    assert all(torch.isfinite(v).all() for v in tensors(tmp_path / "run").values() if v.is_floating_point())
    assert latest(tmp_path / "run").name == "step-00000004"


def test_weights_that_are_not_finite_are_never_saved(train, tmp_path, monkeypatch, capsys):
    whole = VaeWgan.loss

    def loss(self, images, noise):
        total, terms = whole(self, images, noise)
        self.calls = getattr(self, "calls", 0) + 1
        # All terms are finite and the gradient is not: only the weights tell, and only after the update.
        return (total * float("inf") if self.calls == 4 else total), terms

    monkeypatch.setattr(VaeWgan, "loss", loss)
    code = train("--steps", "4", "--checkpoint-every", "2", "--balance-every", "0")
    assert code == 1
    assert "step-00000002" in capsys.readouterr().err.splitlines()[-1]


def test_a_time_limit_stops_and_saves(train, tmp_path):
    assert train("--minutes", "0.02", "--epochs", "100000", "--lr-decay", "1") == 0
    assert checkpoints(tmp_path / "run" / "checkpoints")
    assert stats(tmp_path / "run")[-1]["step"] < 100_000


def test_a_run_with_a_time_limit_says_how_far_it_will_come(train, monkeypatch, capsys):
    monkeypatch.setattr(log, "_MEASURED_S", 0.0)
    assert train("--minutes", "0.02", "--epochs", "100000", "--lr-decay", "1", "--log-every", "2") == 0
    said = re.findall(r"at .* images/s about (\d+) of 500000 steps fit into the 0.02 minutes", capsys.readouterr().err)
    assert len(said) == 1 and 2 <= int(said[0]) < 100_000


@pytest.mark.parametrize("flags", [["--steps", "3"], ["--epochs", "100000", "--minutes", "0.001"]])
def test_the_last_line_names_the_picture_to_open(train, tmp_path, capsys, flags):
    assert train(*flags) == 0
    picture = Path(capsys.readouterr().out.splitlines()[-1].removeprefix("picture to open: "))
    assert picture == max((tmp_path / "run" / "pictures").glob("reconstructions-*.png"))


def test_the_demo_is_a_matter_of_minutes_on_every_machine():
    assert RECIPES["demo"]().train.minutes == 8


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_compiled_step_gives_the_same_losses(train, tmp_path, monkeypatch, backend):
    """Inductor makes dozens of kernels of a stage, which take the C++ compiler long; the graph is the same."""
    stages = ["--stages", "1"] if backend == "inductor" else []
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=backend))
    for mode in ("on", "off"):
        flags = ["--steps", "2", "--out", str(tmp_path / mode), "--compile", mode, "--balance-every", "0", *stages]
        assert train(*flags) == 0
    for compiled, eager in zip(stats(tmp_path / "on"), stats(tmp_path / "off"), strict=True):
        for name in ("kl", "rec", "held_out_rec"):
            if name in eager:
                assert compiled[name] == pytest.approx(eager[name], rel=2e-3)


def test_dry_run_writes_nothing(train, tmp_path, capsys):
    assert train("--dry-run") == 0
    assert not (tmp_path / "run").exists()
    said = capsys.readouterr().out
    assert "25 steps of 8 images, 5 an epoch" in said and '"label_scale"' in said
