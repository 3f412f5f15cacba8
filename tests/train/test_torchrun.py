"""Runs of several ranks: what they write, how they end, how they go on, with torchrun's own agent."""

import errno
import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from fastvae.cli import main
from fastvae.data.order import epoch_order
from fastvae.distributed import watch
from fastvae.train import checkpoint, checkpoint_files
from fastvae.train.trainer import Trainer
from tests.train.conftest import SMALL
from tests.train.launched import FAILED, Launched

FILES = (checkpoint_files.MODEL, checkpoint_files.OPTIMIZER)


def newest(run: Path) -> dict[str, torch.Tensor]:
    saved = checkpoint_files.latest(run)
    return {f"{file} {name}": t for file in FILES for name, t in load_file(saved / file).items()}


def lines(run: Path) -> list[dict]:
    read = [json.loads(line) for line in (run / "stats.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in ("seconds", "images_per_s")} for line in read]


# Without the loss network a step takes 20 ms.
VAE_GAN = [flag for flag in SMALL if flag not in ("--vgg", "random", "--layers", "relu1_1", "relu2_1")]


@pytest.fixture
def launch(packed, tmp_path):
    """launch("--steps", "3", ranks=2, ...) -> a `Launched` of a run in tmp_path / "run"."""

    def started(*flags: str, resume: bool = False, **options) -> Launched:
        run = str(tmp_path / "run")
        usual = ["celeba64-vae-gan", "--data", str(packed.path), *VAE_GAN, "--compile", "off", "--out", run]
        return Launched(tmp_path, ["train", *(["--resume", run] if resume else usual), *flags], **options)

    return started


def before_step(step: int, act: Callable[[Trainer], None]) -> None:
    """Calls `act` before a step's images are read."""
    read = Trainer._read_images

    def reading(trainer: Trainer) -> None:
        if trainer.done == step:
            act(trainer)
        read(trainer)

    Trainer._read_images = reading


def only(rank: int, step: int, act: Callable[[Trainer], None], *, lost_s: float = 10.0) -> Callable[[int], None]:
    """One rank does something before a step; from then on it takes so many seconds to be lost, and ten until then."""

    def before(number: int) -> None:
        watch.LOST_S, watch.STUCK_S = 10.0, 10.0

        def acting(trainer: Trainer) -> None:
            watch.LOST_S, watch.STUCK_S = lost_s, lost_s
            if number == rank:
                act(trainer)

        before_step(step, acting)

    return before


def kill(number: int) -> Callable[[Trainer], None]:
    return lambda trainer: os.kill(os.getpid(), number)


def messages(launched: Launched) -> list[str]:
    return [line for line in launched.said.read_text().splitlines() if line.startswith("fastvae train:")]


def kill_when_said(launched: Launched, rank: int) -> None:
    """What torchrun does to a stopped rank, but only 30 s after the others have ended."""
    end = time.monotonic() + 60
    while not (launched.said.exists() and messages(launched)):
        assert time.monotonic() < end
        time.sleep(0.1)
    os.kill(launched.pid(rank), signal.SIGKILL)


def keeping_parameters(folder: Path) -> Callable[[int], None]:
    """Each rank leaves its parameters in the folder."""

    def before(rank: int) -> None:
        fit = Trainer.fit

        def fitted(trainer):
            code = fit(trainer)
            networks = trainer.objective.networks.items()
            torch.save({f"{n}.{k}": p for n, net in networks for k, p in net.named_parameters()}, folder / f"{rank}.pt")
            return code

        Trainer.fit = fitted

    return before


def noting_seconds(folder: Path) -> Callable[[int], None]:
    """Each rank leaves in the folder how long the run has been trained when it goes on."""

    def before(rank: int) -> None:
        fit = Trainer.fit

        def fitted(trainer):
            (folder / f"seconds-{rank}").write_text(str(trainer.seconds))
            return fit(trainer)

        Trainer.fit = fitted

    return before


def test_fifty_steps(launch, tmp_path):
    launched = launch("--steps", "50", before=keeping_parameters(tmp_path))
    assert launched.wait() == [0]
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    assert all(torch.equal(first[key], second[key]) for key in first)
    said = launched.said.read_text()
    assert said.count("2 ranks with 8 images each: a step has 16 images and the learning rate stays 0.0004") == 1
    assert said.count("training celeba64-vae-gan in") == 1
    assert [line["step"] for line in lines(tmp_path / "run")] == [0, *range(1, 51), 50]
    assert {line["ranks"] for line in lines(tmp_path / "run") if "kl" in line} == {2}


_WAYS = [  # (how, rank, machines)
    ("killed", 0, 1),
    ("killed", 1, 1),
    ("stopped", 1, 1),
    ("error", 1, 1),
    pytest.param("error", 0, 1, marks=pytest.mark.slow),
    pytest.param("reads for too long", 0, 1, marks=pytest.mark.slow),
    pytest.param("reads for too long", 1, 1, marks=pytest.mark.slow),
    pytest.param("killed", 1, 2, marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("how", "rank", "machines"), _WAYS)
def test_what_ends_one_rank_ends_all(launch, tmp_path, how, rank, machines):
    def gone(step: int) -> None:
        raise OSError("the disk is gone")

    act, expected = {
        "killed": (kill(signal.SIGKILL), f"rank {rank} was lost"),
        "stopped": (kill(signal.SIGSTOP), f"rank {rank} was lost"),
        "error": (lambda trainer: setattr(trainer.feed, "ready", gone), "images of step 6 cannot be read (the disk is"),
        "reads for too long": (
            lambda trainer: setattr(trainer.feed, "ready", lambda step: time.sleep(60)),
            f"rank {rank}: reading the images of step 6 takes longer than 4 s",
        ),
    }[how]
    launched = launch("--steps", "8", ranks=2 // machines, machines=machines, before=only(rank, 5, act, lost_s=4.0))
    if how == "stopped":
        kill_when_said(launched, rank)
    assert launched.wait() == [FAILED] * machines
    (message,) = messages(launched)
    assert expected in message and (rank == 0 or f"rank {rank}" in message)
    assert f"The first 5 steps are saved; continue with: fastvae train --resume {tmp_path / 'run'}" in message
    assert checkpoint_files.step_of(checkpoint_files.latest(tmp_path / "run")) == 5


def test_an_unexpected_error_of_rank_0_loses_no_step(launch, tmp_path):
    def bug(epoch: int) -> None:
        raise ZeroDivisionError("a bug")

    launched = launch("--steps", "8", before=only(0, 4, lambda trainer: setattr(trainer.rates, "set_epoch", bug)))
    assert launched.wait() == [FAILED]
    said = launched.said.read_text()
    assert "ZeroDivisionError: a bug" in said and "The first 5 steps are saved; continue with" in said
    assert checkpoint_files.step_of(checkpoint_files.latest(tmp_path / "run")) == 5


def test_a_stopped_rank_0_keeps_the_folder_locked(launch, tmp_path):
    """The others cannot save, since it may go on."""
    launched = launch("--steps", "8", "--checkpoint-every", "3", before=only(0, 5, kill(signal.SIGSTOP), lost_s=4.0))
    kill_when_said(launched, 0)
    assert launched.wait() == [FAILED]
    (message,) = messages(launched)
    assert "rank 0 was lost" in message and "continue from the newest checkpoint with" in message
    assert checkpoint_files.step_of(checkpoint_files.latest(tmp_path / "run")) == 3


def test_a_loss_that_is_not_finite_on_one_rank_ends_all(launch, tmp_path):
    def poison(trainer: Trainer) -> None:
        noise = trainer.runner.noise
        trainer.runner.noise = torch.full_like(noise, float("nan"))
        trainer.runner.noise.normal_ = lambda generator: None

    launched = launch("--steps", "8", before=only(1, 5, poison))
    assert launched.wait() == [FAILED]
    (message,) = messages(launched)
    assert "was nan at step 6, so training stopped" in message and "rank" not in message


def test_a_full_disk_is_told_once(launch, tmp_path):
    def full(trainer: Trainer) -> None:
        def no_space(*arguments) -> bytes:
            raise OSError(errno.ENOSPC, "No space left on device")

        checkpoint.to_bytes = no_space

    launched = launch("--steps", "8", "--checkpoint-every", "3", before=only(0, 5, full))
    assert launched.wait() == [FAILED]
    (message,) = messages(launched)
    assert message.count("could not save") == 1 and message.count("--resume") == 1


def test_a_signal_stops_all_after_the_same_step_and_nothing_is_lost(launch, tmp_path):
    """The run goes on as one that was never stopped, noise of each rank included."""
    flags = "--steps", "8", "--resident", "on", "--ema", "0.9", "--kl-warmup", "0.9", "--flip"
    launched = launch(*flags, before=only(1, 3, kill(signal.SIGTERM)))
    assert launched.wait() == [FAILED]
    assert messages(launched) == []
    run = tmp_path / "run"
    assert checkpoint_files.step_of(checkpoint_files.latest(run)) == 4
    seconds = json.loads((checkpoint_files.latest(run) / "state.json").read_text())["seconds"]
    assert launch(resume=True, before=noting_seconds(tmp_path)).wait() == [0]
    assert [float((tmp_path / f"seconds-{rank}").read_text()) for rank in range(2)] == [seconds] * 2
    run.rename(tmp_path / "stopped")
    assert launch(*flags).wait() == [0]
    found, expected = newest(tmp_path / "stopped"), newest(run)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], expected[key]) for key in expected)
    assert lines(tmp_path / "stopped") == lines(run)
    noises = [found[f"{checkpoint_files.OPTIMIZER} {name}"] for name in ("noise", "noise.1")]
    assert not torch.equal(*noises)


def test_the_clock_of_rank_0_decides_for_all(launch, tmp_path):
    def late(trainer: Trainer) -> None:
        trainer.seconds = 3600.0

    flags = "--steps", "8", "--minutes", "1"
    assert launch(*flags, before=only(1, 3, late)).wait() == [0]
    assert checkpoint_files.step_of(checkpoint_files.latest(tmp_path / "run")) == 8
    (tmp_path / "run").rename(tmp_path / "other")
    assert launch(*flags, before=only(0, 3, late)).wait() == [0]
    assert checkpoint_files.step_of(checkpoint_files.latest(tmp_path / "run")) == 4


def test_torchrun_starts_a_run_again_which_goes_on(launch, tmp_path):
    def once(trainer: Trainer) -> None:
        if os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
            kill(signal.SIGKILL)(trainer)

    launched = launch("--steps", "8", restarts=1, before=only(1, 5, once))
    assert launched.wait() == [0]
    assert "continuing after 5 steps of celeba64-vae-gan" in launched.said.read_text()
    assert [line["step"] for line in lines(tmp_path / "run")] == [0, *range(1, 9), 8]


def test_restarts_need_a_folder_that_is_found_again(monkeypatch, capsys):
    for name, value in {"WORLD_SIZE": "1", "RANK": "0", "LOCAL_RANK": "0", "TORCHELASTIC_MAX_RESTARTS": "1"}.items():
        monkeypatch.setenv(name, value)
    assert main(["train", "demo"]) == 2
    assert "needs --out DIR" in capsys.readouterr().err
    with pytest.raises(SystemExit) as exit:  # what trains nothing needs none
        main(["train", "demo", "--help"])
    assert exit.value.code == 0


def test_a_run_goes_on_with_another_number_of_ranks(launch, packed, tmp_path):
    """1, then 2 on two machines, then 3, then 1: the images are the next ones of the epoch's order each time."""
    used = tmp_path / "used"
    used.mkdir()

    def noting(rank: int) -> None:
        read = Trainer._read_images

        def reading(trainer: Trainer) -> None:
            positions = trainer.order[trainer.done].tolist()
            (used / f"{trainer.done}-{rank}.json").write_text(json.dumps(positions))
            read(trainer)

        Trainer._read_images = reading

    assert launch("--steps", "1", "--batch-size", "4", ranks=1, before=noting).wait() == [0]
    assert launch("--steps", "3", resume=True, ranks=1, machines=2, before=noting).wait() == [0, 0]
    assert launch("--epochs", "2", resume=True, ranks=3, before=noting).wait() == [0]
    # 4 images, 2 x 8, 1 x 12 of the first epoch's 40; 8 do not fill a step. Then 3 x 12 of the second.
    sizes = [4, 8, 8, 12, 12, 12, 12]
    steps = [
        sorted(p for path in used.glob(f"{step}-*.json") for p in json.loads(path.read_text()))
        for step in range(len(sizes))
    ]
    epochs = [epoch_order(40, seed=0, epoch=epoch) for epoch in range(2)]
    starts = [(0, 0), (0, 4), (0, 12), (0, 20), (1, 0), (1, 12), (1, 24)]
    expected = [sorted(epochs[epoch][start : start + size]) for (epoch, start), size in zip(starts, sizes, strict=True)]
    assert steps == expected
    assert len(list(used.iterdir())) == 1 + 2 * 2 + 4 * 3
    assert lines(tmp_path / "run")[-2]["epoch"] == 2.0
    assert main(["train", "--resume", str(tmp_path / "run"), "--epochs", "3"]) == 0
    assert lines(tmp_path / "run")[-2]["step"] == 7 + 10 and lines(tmp_path / "run")[-2]["epoch"] == 3.0
