"""`python -m bench all`: gate first, every suite within its share, nothing that was measured is lost."""

import json
import re
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from bench import everything
from bench.kernels import bench_kernels
from bench.suites import SUITES, Suite
from fastvae.errors import FastvaeError

OPS = ("replicate_conv", "feature_loss", "critic_update", "conv_relu")
GRACE_S = everything.GRACE_S


class World:
    """A clock that only waiting moves, and suites that take time by it: name -> (seconds, deaf, rows, exit status).

    A suite writes its record at the end; one that is asked to end writes another one, one that is deaf to that wrote
    one at its beginning.
    """

    def __init__(self, suites: dict[str, tuple[float, bool, int, int]]):
        self.suites, self.now, self.commands = suites, 0.0, []

    def monotonic(self) -> float:
        return self.now

    def start(self, command: list[str]):
        self.commands.append(command)
        return Process(self, Path(command[-1]), *self.suites[command[0]])


class Process:
    """The process of a suite, as far as `run_for` knows it."""

    def __init__(self, world: World, path: Path, seconds: float, deaf: bool, rows: int, status: int):
        self.world, self.path, self.deaf, self.rows, self.status = world, path, deaf, rows, status
        self.ends, self.returncode, self.killed = world.now + seconds, None, False
        if deaf:
            self._write(["early"])

    def _write(self, rows: list[str]) -> None:
        self.path.write_text(json.dumps({"rows": rows}))
        self.path.with_suffix(".png").write_bytes(b"picture")

    def poll(self) -> int | None:
        if self.returncode is None and self.world.now >= self.ends:
            self._write(["complete"] * self.rows)
            self.returncode = self.status
        return self.returncode

    def wait(self, timeout: float) -> int:
        if self.returncode is not None:
            return self.returncode
        self.world.now = min(self.world.now + timeout, max(self.ends, self.world.now))
        if self.poll() is None:
            raise subprocess.TimeoutExpired("suite", timeout)
        return self.returncode

    def terminate(self) -> None:
        if not self.deaf:
            self._write(["half"] * self.rows)
            self.returncode = 143

    def kill(self) -> None:
        self.killed = True


def made_up_suite(name: str, needs: tuple[str, ...]) -> Suite:
    return Suite("nowhere", str, share=1, needs=needs, own_ops=SUITES["kernels"].own_ops if name == "kernels" else {})


@pytest.fixture
def all_of(monkeypatch, tmp_path):
    """Runs made-up suites in a made-up world, after a gate of real processes; returns status and record."""

    def run(suites: dict[str, tuple], *flags: str, gate: dict[str, str] | None = None, needs: dict | None = None):
        world = run.world = World(suites)
        made_up = {name: made_up_suite(name, (needs or {}).get(name, ())) for name in suites}
        monkeypatch.setattr(everything, "SUITES", made_up)
        monkeypatch.setattr(
            everything, "gate_command", lambda op, **_: [sys.executable, "-c", (gate or {}).get(op, "")]
        )
        monkeypatch.setattr(everything, "suite_command", lambda name, path, flags: [name, *flags, str(path)])
        monkeypatch.setattr(everything, "time", SimpleNamespace(monotonic=world.monotonic, sleep=time.sleep))
        monkeypatch.setattr(everything, "_started", world.start)
        monkeypatch.setattr(everything, "_kill", lambda process: process.kill())
        out = tmp_path / "2026-01-01-cpu-all.json"
        return everything.main(["--out", str(out), *flags]), json.loads(out.read_text())

    return run


def test_records_and_pictures_are_merged(all_of, tmp_path):
    status, record = all_of({"a": (1, False, 1, 0), "b": (1, False, 2, 0)})
    assert status == 0 and record["gate"] == {"passed": True, "seconds": 0.0, "ops": {}} and record["machine"]["torch"]
    assert record["suites"] == {
        "a": {"rows": ["complete"], "command": "python -m bench a"},
        "b": {"rows": ["complete", "complete"], "command": "python -m bench b"},
    }
    assert [run["exit_status"] for run in record["runs"].values()] == [0, 0]
    assert sorted(p.name for p in tmp_path.glob("*.png")) == [f"2026-01-01-cpu-all-{name}.png" for name in "ab"]


FAILS = (
    "print('FAILED tests/kernels/test_feature_loss_triton.py::test_odd_shapes - AssertionError'); raise SystemExit(1)"
)


def test_a_wrong_op_keeps_only_those_that_need_it_from_being_timed(all_of, capsys):
    needs = {"both": ("replicate_conv", "feature_loss"), "other": ("replicate_conv",), "kernels": OPS[:3]}
    suites = dict.fromkeys([*needs, "none"], (1, False, 1, 0))
    status, record = all_of(suites, gate={"feature_loss": FAILS}, needs=needs)
    printed = capsys.readouterr().out
    assert status == 1 and set(record["suites"]) == {"other", "kernels", "none"}
    assert "FAILED: the gate: feature_loss: test_odd_shapes\n" in printed
    assert "FAILED: both was not timed, since it needs feature_loss\n" in printed
    passed = {op: result["passed"] for op, result in record["gate"]["ops"].items()}
    assert passed == {"replicate_conv": True, "feature_loss": False, "critic_update": True}
    kernels = next(command for command in all_of.world.commands if command[0] == "kernels")
    assert kernels[1:-1] == ["--op", "replicate_conv2d", "critic_update"]


def test_when_every_op_is_wrong_their_suite_is_not_timed(all_of):
    needs, gate = {"kernels": OPS[:3]}, dict.fromkeys(OPS, FAILS)
    status, record = all_of(dict.fromkeys(["kernels", "none"], (1, False, 1, 0)), gate=gate, needs=needs)
    assert status == 1 and set(record["suites"]) == {"none"}


def test_only_ops_that_are_needed_are_tested(all_of):
    needs = {"a": ("replicate_conv",), "b": ("conv_relu",)}
    status, record = all_of(
        dict.fromkeys("ab", (1, False, 1, 0)), "--only", "b", gate={"replicate_conv": FAILS}, needs=needs
    )
    assert status == 0 and set(record["suites"]) == {"b"} and list(record["gate"]["ops"]) == ["conv_relu"]


@pytest.mark.parametrize(
    ("gate", "failed"),
    [
        ("print('347 deselected in 3.00s'); raise SystemExit(5)", "347 deselected in 3.00s"),
        ("raise SystemExit(3)", "no test ran"),
        ("print('ERROR tests/kernels/test_conv_relu.py'); raise SystemExit(2)", "its tests cannot be read"),
        ("print('ERROR tests/kernels/test_conv_relu.py::test_a[1-2] - X'); raise SystemExit(1)", "test_a[1-2]"),
        ("print('FAILED tests/a.py::test_a'); print('FAILED tests/a.py::test_b'); exit(1)", "test_a, test_b"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "no test ran"),
    ],
)
def test_an_op_whose_tests_did_not_pass_is_wrong(gate, failed):
    result = everything.check({"conv_relu": [sys.executable, "-c", gate], "other": [sys.executable, "-c", ""]}, 1e6)
    assert not result["passed"] and result["ops"]["conv_relu"]["failed"] == failed
    assert result["ops"]["other"]["passed"] and result["ops"]["other"]["failed"] is None


def test_tests_that_are_not_done_in_time_have_not_passed():
    result = everything.check({"conv_relu": [sys.executable, "-c", "import time; time.sleep(3600)"]}, 0.0)
    assert result["ops"]["conv_relu"]["failed"] == "not done when its time was over"


@pytest.mark.parametrize("op", OPS)
def test_every_op_has_tests_in_the_gate(op):
    on_a_cpu = everything.gate_command(op, on_gpu=False)
    files = [word for word in on_a_cpu if word.endswith(".py")]
    tests = "".join((everything.ROOT / file).read_text() for file in files)
    assert re.search(f"def test_\\w*({on_a_cpu[-1].replace(' or ', '|')})", tests)
    assert everything.gate_command(op, on_gpu=True)[-2:] == ["-m", "gpu"] and "@pytest.mark.gpu" in tests


def test_the_gate_is_real():
    command = [*everything.gate_command("conv_relu", on_gpu=False), "-k", "equals_reference"]
    gate = everything.check({"conv_relu": command}, 1e6)
    assert gate["passed"] and " passed" in gate["ops"]["conv_relu"]["summary"]


def test_needs_name_ops_that_there_are():
    assert {op for suite in SUITES.values() for op in suite.needs} == set(OPS)
    for suite in SUITES.values():
        assert not suite.own_ops or set(suite.own_ops) == set(suite.needs)
    assert set(SUITES["kernels"].own_ops.values()) == set(bench_kernels.OPS)


@pytest.mark.parametrize("deaf", [False, True], ids=["asked_to_end", "killed"])
def test_a_suite_that_runs_over_is_stopped_and_what_it_wrote_is_kept(all_of, deaf, capsys):
    status, record = all_of({"slow": (600, deaf, 1, 0), "quick": (1, False, 1, 0)}, "--minutes", "2")
    assert status == 0 and record["suites"]["slow"]["rows"] == ["early" if deaf else "half"]
    assert record["runs"]["slow"] == {"seconds": 60.0 if deaf else 50.0, "limit_s": 60.0, "exit_status": None}
    assert record["runs"]["quick"] == {"seconds": 1.0, "limit_s": 60.0 if deaf else 70.0, "exit_status": 0}
    assert "slow: up to 60 s" in capsys.readouterr().out


def test_the_faces_are_drawn_before_the_suites_get_their_shares(all_of, monkeypatch, capsys):
    asked = []

    def draw(data, size):
        asked.append((data, size))
        all_of.world.now += 10

    monkeypatch.setattr(everything, "open_images", draw)
    _, record = all_of({"paper": (1, False, 1, 0)}, "--minutes", "1")
    assert asked == [("faces", 64)] and "the embedded faces" in capsys.readouterr().out
    assert record["runs"]["paper"]["limit_s"] == 50.0 and record["seconds"] == 11.0
    all_of({"paper": (1, False, 1, 0)}, "--tiny")
    all_of({"step": (1, False, 1, 0)})
    assert len(asked) == 1


def test_faces_that_cannot_be_drawn_do_not_stop_the_others(all_of, monkeypatch, capsys):
    def fails(data, size):
        raise FastvaeError("no room left")

    monkeypatch.setattr(everything, "open_images", fails)
    status, record = all_of({"paper": (1, False, 1, 0), "step": (1, False, 1, 0)})
    assert status == 0 and set(record["suites"]) == {"paper", "step"}
    assert "the embedded faces: no room left" in capsys.readouterr().out


def test_time_that_is_left_over_goes_to_the_next(all_of):
    _, record = all_of({"a": (6, False, 1, 0), "b": (6, False, 1, 0)}, "--minutes", "1")
    assert [run["limit_s"] for run in record["runs"].values()] == [30.0, 54.0]


@pytest.mark.parametrize(
    ("suite", "message"),
    [
        ((1, False, 1, 3), "bad ended with exit status 3"),
        ((1, False, 0, 0), "bad measured nothing"),
        ((600, False, 0, 0), "bad measured nothing, stopped when its time was over"),
    ],
)
def test_a_suite_that_fails_does_not_stop_the_others(all_of, suite, message, capsys):
    status, record = all_of({"bad": suite, "good": (1, False, 1, 0)}, "--minutes", "2")
    assert status == 1 and record["suites"]["good"]["rows"] == ["complete"]
    assert f"FAILED: {message}" in capsys.readouterr().out


def test_only_what_is_asked_for(all_of):
    _, record = all_of({"a": (1, False, 1, 0), "b": (1, False, 1, 0)}, "--only", "b")
    assert set(record["suites"]) == {"b"}


@pytest.mark.parametrize("limit_s", [0.0, 4.0, 100.0])
@pytest.mark.parametrize("deaf", [False, True])
def test_no_limit_is_overrun(monkeypatch, tmp_path, limit_s, deaf):
    world = World({"suite": (1000, deaf, 1, 0)})
    monkeypatch.setattr(everything, "time", world)
    monkeypatch.setattr(everything, "_started", world.start)
    monkeypatch.setattr(everything, "_kill", lambda process: process.kill())
    run = everything.run_for(["suite", str(tmp_path / "suite.json")], limit_s)
    grace_s = min(GRACE_S, limit_s / 2)
    assert run == everything.Run(limit_s if deaf else limit_s - grace_s, limit_s, None)


def test_a_process_that_ignores_the_request_is_killed_with_those_that_it_started(tmp_path):
    child = "import sys, time; print(1, flush=True); time.sleep(3600)"
    deaf = f"""
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
subprocess.Popen([sys.executable, "-c", {child!r}], stdout=open(sys.argv[1], "w"))
time.sleep(3600)
"""
    # The pipe ends when the last process that holds it does.
    pipe = tmp_path / "pipe"
    everything.os.mkfifo(pipe)
    keeps_open = subprocess.Popen(["cat", str(pipe)], stdout=subprocess.PIPE)
    process = everything._started([sys.executable, "-c", deaf, str(pipe)])
    assert keeps_open.stdout.readline() == b"1\n"
    process.terminate()
    everything._kill(process)
    assert process.returncode == -9 and keeps_open.stdout.read() == b"" and keeps_open.wait() == 0


@pytest.mark.parametrize("minutes", ["0", "-1", "nan", "inf"])
def test_minutes_that_make_no_sense(minutes, capsys):
    with pytest.raises(SystemExit, match="2"):
        everything.main(["--minutes", minutes])
    assert "--minutes must be above 0" in capsys.readouterr().err
