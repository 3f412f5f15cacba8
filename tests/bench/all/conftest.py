"""Runs of `bench all` whose stages are small programs, on a clock of their own."""

import json
import signal
import time
from types import SimpleNamespace

import pytest

from bench.all import plan, processes, runner
from tests.bench.all.stages import commands


@pytest.fixture(autouse=True)
def _signals(signals_of_a_terminal):
    """A stage can be asked to end."""


@pytest.fixture
def clock(monkeypatch):
    """Time passes for the runner only while it sleeps: however busy the machine, nothing else takes any."""

    def sleep(seconds: float) -> None:
        time.sleep(seconds)
        passing.now += seconds

    passing = SimpleNamespace(now=0.0, sleep=sleep, monotonic=lambda: passing.now, strftime=time.strftime)
    for module in (runner, processes):
        monkeypatch.setattr(module, "time", passing)
    return passing


@pytest.fixture
def all_of(monkeypatch, tmp_path, clock):
    """Runs these programs as stages, others as programs that leave a record; returns status and all.json."""
    out = tmp_path / "out"

    def run(programs: dict[str, str], *flags: str, least_s: float = 0.2) -> tuple[int, dict]:
        monkeypatch.setattr(plan, "commands", commands(programs))
        monkeypatch.setattr(plan, "LEAST_S", least_s)
        run.out, start = out, clock.now
        status = runner.main(["--out", str(out), *flags])
        run.seconds = clock.now - start
        return status, json.loads((out / "all.json").read_text())

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    yield run
    for number, handler in before.items():
        signal.signal(number, handler)
