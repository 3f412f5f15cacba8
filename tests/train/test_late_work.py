"""What a GPU's results are needed for is done a window later; forced here on a CPU, it changes nothing but the time."""

import json

import pytest
import torch

from fastvae.errors import FastvaeError
from fastvae.objectives.vae_wgan import VaeWgan
from fastvae.train import trainer
from fastvae.train.checkpoint_files import checkpoints, latest
from fastvae.train.late_work import LateWork
from fastvae.train.meter import Meter

TIMED = {"seconds", "images_per_s"}


@pytest.fixture
def late(monkeypatch):
    monkeypatch.setattr(trainer, "LateWork", lambda late: LateWork(late=True))


def lines(run):
    read = [json.loads(line) for line in (run / "stats.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in TIMED} for line in read]


def test_jobs_are_done_in_order_one_window_later():
    done, work = [], LateWork(late=True)
    work.add_window(lambda: done.append("first"))
    work.add(lambda: done.append("after the first"))
    assert done == []
    work.add_window(lambda: done.append("second"))
    assert done == ["first", "after the first"]
    work.flush()
    assert done == ["first", "after the first", "second"]


def test_a_job_that_fails_leaves_those_after_it():
    done, work = [], LateWork(late=True)
    work.add_window(lambda: 1 / 0)
    work.add(lambda: done.append("after it"))
    with pytest.raises(ZeroDivisionError):
        work.flush()
    work.flush()
    assert done == ["after it"]


def test_a_window_is_kept_when_one_before_it_fails():
    done, work = [], LateWork(late=True)
    work.add_window(lambda: 1 / 0)
    work.add(lambda: done.append("after it"))
    with pytest.raises(ZeroDivisionError):
        work.add_window(lambda: done.append("the next window"))
    work.flush()
    assert done == ["after it", "the next window"]


def test_without_a_delay_a_job_is_done_at_once():
    done, work = [], LateWork(late=False)
    work.add_window(lambda: done.append(1))
    assert done == [1]


def test_a_window_is_read_while_the_next_one_is_filled():
    meter = Meter(2, torch.device("cpu"))

    def step(value: float):
        meter.record({"kl": torch.tensor(value)})
        meter.count(("kl",))

    step(1.0)
    step(3.0)
    first = meter.close({"gan_to_rec": torch.tensor(0.5)})
    step(7.0)
    second = meter.close()
    assert first.read()[:4] == (2, {"kl": 2.0}, {"gan_to_rec": 0.5}, None)
    assert second.read()[:4] == (1, {"kl": 7.0}, {}, None)


@pytest.mark.gpu
def test_closing_a_window_waits_for_nothing_on_a_gpu():
    meter = Meter(2, torch.device("cuda"))
    terms, extra = {"kl": torch.full((), 2.0, device="cuda")}, {"gan_to_rec": torch.full((), 0.5, device="cuda")}
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        windows = []
        for _ in range(2):
            meter.record(terms)
            meter.count(("kl",))
            windows.append(meter.close(extra))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert [window.read()[:4] for window in windows] == [(1, {"kl": 2.0}, {"gan_to_rec": 0.5}, None)] * 2


def test_the_lines_and_checkpoints_are_the_same(train, tmp_path, monkeypatch):
    flags = ["--steps", "11", "--log-every", "2", "--evaluate-every", "5", "--checkpoint-every", "3"]
    assert train(*flags, "--out", str(tmp_path / "now")) == 0
    monkeypatch.setattr(trainer, "LateWork", lambda late: LateWork(late=True))
    assert train(*flags, "--out", str(tmp_path / "late")) == 0
    now, later = tmp_path / "now", tmp_path / "late"
    assert lines(now) == lines(later)
    for run in (now, later):
        assert [path.name for path in checkpoints(run / "checkpoints")] == ["step-00000009", "step-00000011"]
    for one, other in zip(*(checkpoints(run / "checkpoints") for run in (now, later)), strict=True):
        assert (one / "model.safetensors").read_bytes() == (other / "model.safetensors").read_bytes()
        assert (one / "optimizer.safetensors").read_bytes() == (other / "optimizer.safetensors").read_bytes()


def test_a_divergence_is_noticed_a_window_later_and_named_by_its_step(train, tmp_path, monkeypatch, late, capsys):
    whole, calls = VaeWgan.loss, []

    def loss(self, images, noise):
        total, terms = whole(self, images, noise)
        calls.append(1)
        # Only a logged term, so that the weights would be saved if their checkpoint did not wait for it.
        return total, terms | {"rec": terms["rec"] * float("nan")} if len(calls) == 6 else terms

    monkeypatch.setattr(VaeWgan, "loss", loss)
    assert train("--steps", "20", "--log-every", "4", "--balance-every", "0", "--checkpoint-every", "4") == 1
    message = capsys.readouterr().err.splitlines()[-1]
    assert "'rec'" in message and "step 6" in message and "step-00000004" in message
    assert len(calls) == 12, "the window after steps 5 to 8 was already enqueued"
    assert latest(tmp_path / "run").name == "step-00000004"
    assert [line["step"] for line in lines(tmp_path / "run") if "rec" in line] == [4]


def test_an_error_within_a_step_loses_no_checkpoint_that_waits_for_its_line(train, tmp_path, monkeypatch, late):
    call = trainer.Runner.__call__

    def broken(self, number):
        if number == 5:
            raise FastvaeError("in the middle of a step")
        return call(self, number)

    monkeypatch.setattr(trainer.Runner, "__call__", broken)
    assert train("--steps", "9", "--log-every", "2", "--balance-every", "0", "--checkpoint-every", "4") == 1
    assert [path.name for path in checkpoints(tmp_path / "run" / "checkpoints")] == ["step-00000004"]
    assert [line["step"] for line in lines(tmp_path / "run") if "rec" in line] == [2, 4]
