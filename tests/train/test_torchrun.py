"""Runs of several ranks: what they write, how they end, how they go on, with torchrun's own agent."""

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
from fastvae.distributed import watch
from fastvae.train import checkpoint_files
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


def only(rank: int, step: int, act: Callable[[Trainer], None]) -> Callable[[int], None]:
    """One rank does something before a step; a rank that is lost is so after a second or two."""

    def before(number: int) -> None:
        watch.LOST_S, watch.GONE_S, watch.STUCK_S = 2.0, 1.0, 2.0
        if number == rank:
            before_step(step, act)

    return before


def kill(number: int) -> Callable[[Trainer], None]:
    return lambda trainer: os.kill(os.getpid(), number)


def messages(launched: Launched) -> list[str]:
    return [line for line in launched.said.read_text().splitlines() if line.startswith("fastvae train:")]


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


def test_fifty_steps(launch, tmp_path):
    launched = launch("--steps", "50", before=keeping_parameters(tmp_path))
    assert launched.wait() == [0]
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    assert all(torch.equal(first[key], second[key]) for key in first)
    said = launched.said.read_text()
    assert said.count("2 ranks with 8 images each: a step has 16 images and the learning rate stays 0.0003") == 1
    assert said.count("training celeba64-vae-gan in") == 1
    assert [line["step"] for line in lines(tmp_path / "run")] == [0, *range(1, 51), 50]


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("how", ["killed", "stopped", "error", "reads for too long"])
def test_one_rank_ends_all(launch, tmp_path, rank, how):
    def broken(trainer) -> None:
        raise OSError("the disk is gone")

    def endless(trainer) -> None:
        ready = trainer.feed.ready
        trainer.feed.ready = lambda step: (time.sleep(60), ready(step))

    act = {
        "killed": kill(signal.SIGKILL),
        "stopped": kill(signal.SIGSTOP),
        "error": lambda trainer: setattr(trainer.feed, "ready", broken),
        "reads for too long": endless,
    }[how]
    launched = launch("--steps", "8", before=only(rank, 5, act))
    assert launched.wait() == [FAILED]
    (message,) = messages(launched)
    assert f"--resume {tmp_path / 'run'}" in message
    if how != "error" or rank:
        assert f"rank {rank}" in message
    print(message)
    assert main(["train", "--resume", str(tmp_path / "run")]) == 0
