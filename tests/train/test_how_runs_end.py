"""How a run can end: what is good is saved, the exit code tells, and the advice can be followed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fastvae.cli import main
from fastvae.data.loaders.packed import PackedLoader
from fastvae.errors import FastvaeError
from fastvae.objectives.vae_wgan import VaeWgan
from fastvae.train import checkpoint_files
from fastvae.train.trainer import Trainer
from tests.train.conftest import SMALL

pytestmark = pytest.mark.usefixtures("signals_of_a_terminal")


def newest_step(run: Path) -> int:
    return checkpoint_files.step_of(checkpoint_files.latest(run))


@pytest.fixture
def start(packed, tmp_path):
    """start(...) -> a training process that has done some steps of many; its run is in tmp_path / "run"."""
    processes = []

    def started(**options) -> subprocess.Popen:
        flags = ["--data", packed.path, "--out", tmp_path / "run", *SMALL, "--steps", "1000000", "--device", "cpu"]
        process = subprocess.Popen([sys.executable, "-m", "fastvae", "train", "celeba64", *flags], **options)
        processes.append(process)
        stats = tmp_path / "run" / "stats.jsonl"
        while process.poll() is None and not (stats.exists() and stats.read_text().count('"rec"') > 2):
            time.sleep(0.05)
        return process

    yield started
    for process in processes:
        process.kill()
        process.wait()


@pytest.mark.parametrize("name", ["SIGINT", *(pytest.param(s, marks=pytest.mark.slow) for s in ("SIGTERM", "SIGHUP"))])
def test_a_signal_saves_and_stops(start, tmp_path, name):
    number = getattr(signal, name)
    process = start(stderr=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    process.send_signal(number)
    said, _ = process.communicate()
    assert process.returncode == 128 + number
    step = newest_step(tmp_path / "run")
    assert f"stopped and saved after {step} steps" in said
    assert main(["train", "--resume", str(tmp_path / "run"), "--steps", str(step + 1)]) == 0


def test_an_ignored_hangup_stays_ignored(start):
    process = start(
        stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
    )  # fmt: skip
    process.send_signal(signal.SIGHUP)
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 128 + signal.SIGTERM


def test_training_goes_on_without_the_reader_of_its_output(start, tmp_path):
    reader, writer = os.pipe()
    process = start(stderr=writer, stdout=writer)
    os.close(writer)
    os.close(reader)
    stats = tmp_path / "run" / "stats.jsonl"
    lines = stats.read_text().count("\n")
    while process.poll() is None and stats.read_text().count("\n") < lines + 20:
        time.sleep(0.05)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 128 + signal.SIGTERM
    assert newest_step(tmp_path / "run") > 0


@pytest.mark.parametrize(
    "redirection",
    [">&- 2>&-", *(pytest.param(r, marks=pytest.mark.slow) for r in ("2>/dev/full", "2>&-", "0<&- 2>&-"))],
)
def test_closed_and_full_standard_error(packed, tmp_path, redirection):
    flags = ["--data", str(packed.path), "--out", str(tmp_path / "run"), *SMALL, "--steps", "2"]
    command = f'"$@" {redirection}'
    arguments = ["bash", "-c", command, "-", sys.executable, "-m", "fastvae", "train", "celeba64", *flags]
    done = subprocess.run(arguments, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert newest_step(tmp_path / "run") == 2


def test_images_that_cannot_be_read_any_more_cost_no_step_that_is_done(train, tmp_path, monkeypatch, capsys):
    straight = tmp_path / "straight"
    assert train("--steps", "6", "--out", str(straight)) == 0
    gather, calls = PackedLoader._gather, []

    def failing(self, indices):
        calls.append(indices)
        if len(calls) > 3:
            raise OSError(5, "Input/output error")
        return gather(self, indices)

    monkeypatch.setattr(PackedLoader, "_gather", failing)
    assert train("--steps", "6") == 1
    said = capsys.readouterr().err
    assert "the images of step 4 cannot be read" in said and "The first 3 steps are saved" in said
    monkeypatch.setattr(PackedLoader, "_gather", gather)
    assert newest_step(tmp_path / "run") == 3
    assert train("--resume", str(tmp_path / "run")) == 0
    names = ("model.safetensors", "optimizer.safetensors")
    for name in names:
        files = [checkpoint_files.latest(run) / name for run in (tmp_path / "run", straight)]
        assert files[0].read_bytes() == files[1].read_bytes()


def test_pictures_that_cannot_be_written_cost_no_step_that_is_done(train, tmp_path, monkeypatch, capsys):
    def failing(self):
        raise FastvaeError("the picture could not be written")

    monkeypatch.setattr(Trainer, "_pictures", failing)
    assert train("--steps", "6", "--pictures-every", "4") == 1
    assert "The first 4 steps are saved" in capsys.readouterr().err
    assert newest_step(tmp_path / "run") == 4


def test_an_error_within_a_step_saves_nothing_half_done(train, tmp_path, monkeypatch):
    passes = VaeWgan.passes

    def failing(self, step):
        if step == 3:
            raise FastvaeError("in the middle of a step")
        return passes(self, step)

    monkeypatch.setattr(VaeWgan, "passes", failing)
    assert train("--steps", "6", "--checkpoint-every", "2") == 1
    assert newest_step(tmp_path / "run") == 2


def test_the_advice_after_a_divergence_can_be_followed(train, tmp_path, capsys):
    run = tmp_path / "run"
    assert train("--steps", "20", "--lr", "1e30") == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert "there is no checkpoint yet" in said
    advice = said.split("`")[1].split()
    assert advice[:4] == ["fastvae", "train", "--resume", str(run)]
    # At half of an absurd rate it diverges again, but it does begin again.
    assert main(advice[1:]) == 1
    assert "so training stopped" in capsys.readouterr().err
    assert main([*advice[1:-1], "1e-4"]) == 0


def test_time_that_runs_out_is_not_called_done(train, tmp_path, capsys):
    assert train("--steps", "100000", "--minutes", "0.0001") == 0
    said = capsys.readouterr().out
    assert "done" not in said and "minutes are over" in said
    # Longer than what it has trained: the command that it prints goes on.
    state = json.loads((checkpoint_files.latest(tmp_path / "run") / "state.json").read_text())
    command = said.split("fastvae ")[1].split()
    assert command[:3] == ["train", "--resume", str(tmp_path / "run")] and command[3] == "--minutes"
    assert 60 * float(command[4]) > state["seconds"]


def test_standard_output_that_is_full_or_has_lost_its_reader():
    info = [sys.executable, "-m", "fastvae", "info"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(info, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1 and "standard output cannot be written" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(info, stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")
