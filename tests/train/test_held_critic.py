"""`--critic held` in a run: the label scale moves on the device, is saved, and is the same on all ranks."""

import functools
import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch._dynamo.testing import CompileCounter

from fastvae.cli import main
from fastvae.objectives.vae_wgan import VaeWgan
from fastvae.train.checkpoint_files import OPTIMIZER, latest, read_metadata
from fastvae.train.trainer import Trainer
from tests.train.conftest import SMALL
from tests.train.launched import Launched

HELD = ("--critic", "held", "--critic-share", "0.5", "--balance-every", "1")
# From the first measurement on every step is at the limit.
LIMITED = ("--critic", "held", "--critic-share", "1e-6", "--balance-every", "1")
NUMBERS = ("label_scale", "gan_limit")


def lines(run) -> list[dict]:
    read = [json.loads(line) for line in (run / "stats.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in ("seconds", "images_per_s")} for line in read]


def saved(run) -> dict[str, torch.Tensor]:
    return {f"{file.name} {k}": t for file in latest(run).glob("*.safetensors") for k, t in load_file(file).items()}


def test_no_step_is_compiled_for_a_scale(train, tmp_path, monkeypatch):
    counter = CompileCounter()
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=counter))
    for mode in ("on", "off"):
        assert train(*HELD, "--steps", "4", "--compile", mode, "--out", str(tmp_path / mode)) == 0
    assert counter.frame_count == 1
    compiled, eager = ([line for line in lines(tmp_path / mode) if "label_scale" in line] for mode in ("on", "off"))
    assert len({line["label_scale"] for line in compiled}) == 4
    for ours, expected in zip(compiled, eager, strict=True):
        for name in ("kl", "rec", "gan_to_rec", *NUMBERS):
            assert ours[name] == pytest.approx(expected[name], rel=2e-3)


def test_the_scale_is_logged_and_follows_the_rule(train, tmp_path):
    assert train(*HELD, "--steps", "6") == 0
    measured = [line for line in lines(tmp_path / "run") if "gan_to_rec" in line]
    assert [line["step"] for line in measured] == [1, 2, 3, 4, 5, 6]
    scale = 10.0
    assert measured[0]["label_scale"] == scale  # no limit before the first measurement
    for line in measured:
        # gan_to_rec is proportional to the label scale beside it, which is s unless the limit was lower.
        assert line["label_scale"] <= scale * (1 + 1e-5)
        right = 0.5 * line["label_scale"] / line["gan_to_rec"]
        scale = min(100, max(0.01, scale * min(2, max(0.5, (right / scale) ** 0.5))))
    ends = saved(tmp_path / "run")
    assert ends["optimizer.safetensors label_scale"].item() == pytest.approx(scale, rel=1e-5)
    assert ends["optimizer.safetensors gan_limit"].item() == pytest.approx(measured[-1]["gan_limit"], rel=1e-5)


@pytest.mark.parametrize(
    ("recipe", "flags"),
    [("celeba64", HELD), ("celeba64", LIMITED), ("celeba64-multiview", (*HELD, "--kl-warmup", "0.9"))],
)
def test_resuming_is_exact(train, tmp_path, recipe, flags):
    straight = tmp_path / "straight"
    flags = (*flags, "--steps", "5", "--evaluate-every", "0", "--checkpoint-every", "3")
    assert train(*flags, "--out", str(straight), recipe=recipe) == 0
    broken = shutil.copytree(straight, tmp_path / "broken")
    shutil.rmtree(latest(broken))
    assert train("--resume", str(broken)) == 0
    expected, found = saved(straight), saved(broken)
    assert expected.keys() == found.keys()
    for number in NUMBERS:
        assert sum(name.endswith(number) for name in found) == (2 if "multiview" in recipe else 1)
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert lines(straight) == lines(broken)
    if flags[: len(LIMITED)] == LIMITED:
        assert all(line["label_scale"] < 1 for line in lines(straight) if line.get("step", 0) > 1 and "kl" in line)


def test_the_first_step_is_measured_however_seldom_the_others_are(train, tmp_path):
    for every in ("1", "4"):
        out = tmp_path / every
        assert train(*HELD, "--balance-every", every, "--steps", "1", "--out", str(out)) == 0
        assert saved(out)["optimizer.safetensors gan_limit"].item() < 1e30  # until a measurement the largest number
    often, seldom = (saved(tmp_path / every) for every in ("1", "4"))
    assert all(torch.equal(seldom[name], value) for name, value in often.items())


def test_it_is_measured_as_often_as_asked(train, tmp_path):
    assert train(*HELD, "--balance-every", "2", "--steps", "6") == 0
    assert [line["step"] for line in lines(tmp_path / "run") if "gan_to_rec" in line] == [2, 4, 6]


@pytest.mark.parametrize("value", [0.0, float("nan"), float("inf")])
@pytest.mark.parametrize("number", NUMBERS)
def test_a_damaged_number_is_refused(train, tmp_path, capsys, number, value):
    assert train(*HELD, "--steps", "2") == 0
    file = latest(tmp_path / "run") / OPTIMIZER
    save_file(load_file(file) | {number: torch.tensor(value)}, file)
    assert train("--resume", str(tmp_path / "run"), "--steps", "3") == 1
    assert f"{number} is {value:g}" in capsys.readouterr().err


def test_a_run_that_never_measures_is_refused(train, tmp_path, capsys):
    assert train("--critic", "held", "--balance-every", "0") == 2
    assert "balance-every must be 1 or more; got 0" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_run_of_a_version_without_it_is_resumed(train, tmp_path):
    """Without the share, and without the limit, which came later."""
    assert train(*HELD, "--steps", "4") == 0
    trained = tmp_path / "run"
    values = json.loads((trained / "config.json").read_text())
    del values["objective"]["critic_share"]
    optimizers = latest(trained) / OPTIMIZER
    kept = load_file(optimizers)
    del kept["gan_limit"]
    save_file(kept, optimizers)
    (trained / "config.json").write_text(json.dumps(values))
    file = latest(trained) / "model.safetensors"
    metadata = read_metadata(file)
    del metadata["config"]["objective"]["critic_share"]
    save_file(load_file(file), file, {"fastvae": json.dumps(metadata)})
    assert main(["train", "--resume", str(trained), "--steps", "5"]) == 0


def test_two_ranks_keep_one_scale(packed, tmp_path):
    """They measure on images of their own and steer by the mean."""

    def before(rank: int) -> None:
        fit = Trainer.fit

        def fitted(trainer):
            code = fit(trainer)
            torch.save(trainer.objective.steered(), tmp_path / f"{rank}.pt")
            return code

        Trainer.fit = fitted

    flags = ["--data", str(packed.path), *SMALL, *HELD, "--compile", "off", "--out", str(tmp_path / "run")]
    launched = Launched(tmp_path, ["train", "celeba64", *flags, "--steps", "4"], before=before)
    assert launched.wait() == [0], launched.said.read_text()
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    assert first == second and first["label_scale"].item() != 10
    measured = [line for line in lines(tmp_path / "run") if "gan_to_rec" in line]
    assert len({line["label_scale"] for line in measured}) == 4


def test_a_measurement_that_does_not_fit_into_memory_says_what_to_do(train, tmp_path, monkeypatch, capsys):
    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(VaeWgan, "balance", full)
    assert train(*HELD, "--steps", "3") == 1
    said = capsys.readouterr().err
    assert "measuring the critic's share of the gradient: it does not fit" in said and "--batch-size" in said
    assert "The first 1 steps are saved" in said


def test_a_first_measurement_that_failed_leaves_no_trace_and_is_made_up(train, tmp_path, monkeypatch):
    seldom = (*HELD, "--balance-every", "100")
    assert train(*seldom, "--steps", "1", "--out", str(tmp_path / "whole")) == 0
    balance = VaeWgan.balance

    def full_at_its_end(*given):
        balance(*given)
        raise torch.OutOfMemoryError("CUDA out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(VaeWgan, "balance", full_at_its_end)
        assert train(*seldom, "--steps", "3") == 1
    networks = {n: v for n, v in saved(tmp_path / "run").items() if n.startswith("model.safetensors")}
    expected = saved(tmp_path / "whole")
    assert networks and all(torch.equal(value, expected[name]) for name, value in networks.items())
    limit = "optimizer.safetensors gan_limit"
    assert saved(tmp_path / "run")[limit].item() >= 1e30 > expected[limit].item()
    assert train("--resume", str(tmp_path / "run"), "--steps", "2") == 0
    assert saved(tmp_path / "run")[limit].item() < 1e30


@pytest.mark.gpu
def test_on_a_gpu_a_captured_step_reads_the_scale(train, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    flags = (*HELD, "--device", "cuda", "--precision", "fp32", "--compile", "off", "--steps", "6")
    for mode in ("on", "off"):
        assert train(*flags, "--cuda-graph", mode, "--out", str(tmp_path / mode)) == 0
    captured, eager = ([line for line in lines(tmp_path / mode) if "label_scale" in line] for mode in ("on", "off"))
    assert len({line["label_scale"] for line in captured[:4]}) == 4  # three doublings from its bound, where it stays
    for ours, expected in zip(captured, eager, strict=True):
        for name in ("kl", "rec", "gan_to_rec", *NUMBERS):
            assert ours[name] == pytest.approx(expected[name], rel=2e-2)


@pytest.mark.gpu
def test_on_a_gpu_it_runs_as_a_gpu_runs_by_default(train, tmp_path):
    """In bfloat16, compiled and captured."""
    assert train(*HELD, "--device", "cuda", "--precision", "bf16", "--compile", "on", "--steps", "6") == 0
    measured = [line for line in lines(tmp_path / "run") if "gan_to_rec" in line]
    assert len({line["label_scale"] for line in measured[:4]}) == 4
    assert all(0 < line[name] < float("inf") for line in measured for name in ("gan_to_rec", *NUMBERS))
