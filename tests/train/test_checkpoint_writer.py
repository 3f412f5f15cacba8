"""Checkpoints written by a thread: one at a time, none lost, and every error is raised in the training loop."""

import json
import threading
from types import SimpleNamespace

import pytest

from fastvae.config import TrainConfig
from fastvae.errors import FastvaeError
from fastvae.recipes import RECIPES
from fastvae.train import checkpoint, trainer
from fastvae.train.checkpoint_files import checkpoints, step_of
from fastvae.train.checkpoint_writer import CheckpointWriter
from fastvae.train.trainer import Trainer


def fail():
    raise FastvaeError("the disk is full")


def test_a_second_write_waits_for_the_first():
    writer, go, done = CheckpointWriter(), threading.Event(), []

    def first():
        go.wait()
        done.append("first")

    writer.start(first)
    writer.check()  # which waits for nothing
    assert done == []
    threading.Timer(0.05, go.set).start()
    writer.start(lambda: done.append("second"))
    writer.wait()
    assert done == ["first", "second"]


@pytest.mark.parametrize("ask", ["wait", "check", "start"])
def test_an_error_is_raised_once_where_it_is_asked_for(ask):
    writer = CheckpointWriter()
    writer.start(fail)
    writer._thread.join()
    with pytest.raises(FastvaeError, match="the disk is full"):
        getattr(writer, ask)(*[lambda: None] * (ask == "start"))
    writer.wait()


def test_settling_raises_nothing():
    writer = CheckpointWriter()
    writer.start(fail)
    assert str(writer.settle()) == "the disk is full"
    assert writer.settle() is None


@pytest.fixture
def saved(monkeypatch) -> list[int]:
    """The steps of all checkpoints that are written, also of those removed later."""
    steps, save = [], checkpoint.save

    def listed(folder, state, *args, **kwargs):
        steps.append(state.step)
        assert threading.current_thread().name == "checkpoint"
        return save(folder, state, *args, **kwargs)

    monkeypatch.setattr(checkpoint, "save", listed)
    return steps


def test_a_checkpoint_every_so_many_minutes_of_training_where_a_line_ends(train, monkeypatch, saved):
    """By a clock that goes on by half a minute whenever it is read: after every step, once more after the first one
    and where a line ends, so that two steps take 90 seconds. 3 minutes are over after steps 5, 11 and 17.

    The loop notices it in the next step, and saves at the end of that step's line.
    """
    now = iter(range(0, 10**9, 30))
    monkeypatch.setattr(trainer, "time", SimpleNamespace(perf_counter=lambda: next(now)))
    assert train("--steps", "20", "--log-every", "2", "--balance-every", "0", "--checkpoint-minutes", "3") == 0
    assert saved == [6, 12, 18, 20]


def test_a_line_also_ends_where_held_out_images_are_evaluated(train, monkeypatch, saved):
    now = iter(range(0, 10**9, 30))
    monkeypatch.setattr(trainer, "time", SimpleNamespace(perf_counter=lambda: next(now)))
    flags = ("--log-every", "1000", "--balance-every", "0", "--evaluate-every", "5", "--checkpoint-minutes", "3")
    assert train("--steps", "12", *flags) == 0
    assert saved == [10, 12]


def test_no_checkpoint_in_between_by_default_for_a_short_run(train, saved):
    assert TrainConfig().checkpoint_every == 0
    assert {recipe().train.checkpoint_every for recipe in RECIPES.values()} == {0}
    assert train("--steps", "3") == 0
    assert saved == [3]


def test_no_minutes_and_no_steps_mean_one_at_the_end(train, monkeypatch, saved):
    now = iter(range(0, 10**9, 3600))
    monkeypatch.setattr(trainer, "time", SimpleNamespace(perf_counter=lambda: next(now)))
    assert train("--steps", "3", "--checkpoint-minutes", "0") == 0
    assert saved == [3]


def test_a_run_of_an_earlier_version_goes_on_with_its_steps_between_checkpoints(train, trained, saved):
    config = trained / "config.json"
    values = json.loads(config.read_text())
    del values["train"]["checkpoint_minutes"]
    config.write_text(json.dumps(values))
    assert train("--resume", str(trained), "--steps", "9") == 0
    assert saved == [6, 8, 9]
    assert json.loads(config.read_text())["train"]["checkpoint_minutes"] == TrainConfig().checkpoint_minutes


def test_training_goes_on_while_a_checkpoint_is_written(train, tmp_path, monkeypatch):
    save, reached = checkpoint.save, threading.Event()

    def slow(folder, state, *args, **kwargs):
        if state.step == 2:
            assert reached.wait(60), "the loop waits for the thread"
        return save(folder, state, *args, **kwargs)

    close = Trainer._close_window

    def closing(self, *args, **options):
        if self.done == 4:
            reached.set()
        close(self, *args, **options)

    monkeypatch.setattr(checkpoint, "save", slow)
    monkeypatch.setattr(Trainer, "_close_window", closing)
    assert train("--steps", "5", "--checkpoint-every", "2", "--balance-every", "0") == 0
    assert [step_of(path) for path in checkpoints(tmp_path / "run" / "checkpoints")] == [4, 5]


def test_a_checkpoint_that_cannot_be_written_ends_the_run_and_loses_no_step(train, tmp_path, monkeypatch, capsys):
    save, failed = checkpoint.save, []

    def failing(folder, state, *args, **kwargs):
        if state.step == 2:
            failed.append(state.step)
            raise FastvaeError("could not save the checkpoint of step 2")
        return save(folder, state, *args, **kwargs)

    monkeypatch.setattr(checkpoint, "save", failing)
    assert train("--steps", "500", "--checkpoint-every", "2") == 1
    said = capsys.readouterr().err.splitlines()[-1]
    (newest,) = checkpoints(tmp_path / "run" / "checkpoints")
    assert failed == [2] and 2 < step_of(newest) < 500
    assert f"of step 2. The first {step_of(newest)} steps are saved" in said


def test_an_error_in_the_loop_lets_the_thread_finish(train, tmp_path, monkeypatch):
    save, written = checkpoint.save, threading.Event()

    def slow(*args, **kwargs):
        written.wait(0.2)
        return save(*args, **kwargs)

    def broken(self, number):
        if number == 2:
            raise FastvaeError("in the middle of a step")
        return call(self, number)

    call = trainer.Runner.__call__
    monkeypatch.setattr(checkpoint, "save", slow)
    monkeypatch.setattr(trainer.Runner, "__call__", broken)
    assert train("--steps", "5", "--checkpoint-every", "2") == 1
    assert [step_of(path) for path in checkpoints(tmp_path / "run" / "checkpoints")] == [2]
