"""The progress line."""

import io
import itertools

import pytest

from fastvae.config import TrainConfig
from fastvae.train.log import Log
from fastvae.train.progress import Progress, duration


def test_duration():
    assert [duration(s) for s in (0, 59.6, 61, 3661)] == ["0:00", "1:00", "1:01", "1:01:01"]


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_terminal_has_one_line_that_is_rewritten():
    stream = Terminal()
    progress = Progress(10, stream)
    progress.show(1, 20.0, {"kl": 12.345678, "rec": 300.0}, 65)
    progress.show(2, 20.0, {"kl": 1.0, "rec": 2.0}, 3)
    text = stream.getvalue()
    assert "\n" not in text and text.count("\r") == 2
    assert "step 1/10  20.0 images/s  kl 12.35  rec 300  1:05 left" in text
    first, second = text.split("\r")[1:]
    assert len(second) >= len(first.rstrip())


@pytest.mark.parametrize("booted_s_ago", [0.0, 5.0, 1e6])
def test_a_file_gets_the_first_line_one_now_and_then_and_the_last_one(booted_s_ago):
    stream, seconds = io.StringIO(), itertools.count()
    progress = Progress(100, stream, quiet_s=40, clock=lambda: booted_s_ago + next(seconds))
    for step in range(1, 101):
        progress.show(step, 1.0, {}, 0)
    steps = [line.split()[1] for line in stream.getvalue().splitlines()]
    assert steps == ["1/100", "41/100", "81/100", "100/100"]


@pytest.mark.parametrize("seconds, steps, said", [(7.3, 100, True), (0.7, 100, False), (7.3, 1, False)])
def test_after_a_slow_first_step_it_says_when_the_first_line_is_due(seconds, steps, said):
    stream = io.StringIO()
    Log(None, Progress(steps, stream), TrainConfig(log_every=10), None).after_first_step(seconds)
    assert stream.getvalue() == ("the first step took 7.3 s; losses follow every 10 steps\n" if said else "")
