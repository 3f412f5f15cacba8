"""Processes side by side within their time, and what they leave running."""

import subprocess
import sys
import time

from bench.all import gate, plan, processes
from tests.bench.all.stages import HANGS, LEAVES_CHILDREN, commands, is_running


def test_what_a_stage_started_ends_with_it(all_of):
    all_of({"step": LEAVES_CHILDREN}, "--only", "step", "--minutes", "1")
    children = [int(line) for line in (all_of.out / "logs/step.log").read_text().split()]
    assert len(children) == 2 and not any(is_running(pid) for pid in children)


def test_a_stage_that_cannot_be_started(all_of, monkeypatch):
    made = commands({})
    all_of({}, "--only", "loader", "--minutes", "1")
    monkeypatch.setattr(plan, "commands", lambda stage, *rest: made(stage, *rest) | {"x": ["/nowhere/python"]})
    logs = {"a": all_of.out / "logs/a.log", "b": all_of.out / "logs/b.log"}
    ended = processes.run_together({"a": ["/nowhere/python"], "b": [sys.executable, "-c", ""]}, 60, logs)
    assert (ended["a"].exit_status, ended["b"].exit_status) == (127, 0)
    assert "could not be started" in logs["a"].read_text()


def test_no_more_run_at_a_time_than_there_are_processors(tmp_path, monkeypatch, clock):
    monkeypatch.setattr(processes, "_processors", lambda: 1)
    alone = f"import os; path = {str(tmp_path / 'busy')!r}; os.mkdir(path); os.rmdir(path)"
    made = {name: [sys.executable, "-c", alone] for name in "abc"}
    ended = processes.run_together(made, 600.0, {name: tmp_path / f"{name}.log" for name in made})
    assert [end.exit_status for end in ended.values()] == [0, 0, 0]
    made = {"d": [sys.executable, "-c", HANGS, "/dev/null"], "e": made["a"]}
    logs = {name: tmp_path / f"{name}.log" for name in made}
    ended = processes.run_together(made, 0.5, logs)
    assert [end.exit_status for end in ended.values()] == [None, None]
    assert not logs["e"].exists() and gate.result(ended, logs)["ops"]["e"]["why_not"].startswith("not done")


def test_what_cannot_die_is_waited_for_once(tmp_path, monkeypatch, clock):
    waits = []

    def cannot_die(process, timeout):
        waits.append(timeout)
        clock.sleep(timeout)
        raise subprocess.TimeoutExpired("it", timeout)

    def hangs(*arguments):
        time.sleep(3600)

    monkeypatch.setattr(processes, "_processors", lambda: 4)
    monkeypatch.setattr(processes, "_DYING_S", 0.25)
    monkeypatch.setattr(processes, "send", hangs)  # as the environment of such a process may hang
    made = {name: [sys.executable, "-c", "import time; time.sleep(3600)"] for name in "abcd"}
    with monkeypatch.context() as patch:
        patch.setattr(subprocess.Popen, "wait", cannot_die)
        patch.setattr(subprocess.Popen, "poll", lambda process: None)
        ended = processes.run_together(made, 0.25, {name: tmp_path / name for name in made})
    assert waits == [0.25, 0.0, 0.0, 0.0] and {end.exit_status for end in ended.values()} == {None}
