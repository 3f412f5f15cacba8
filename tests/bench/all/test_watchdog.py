"""A run that is asked to end or killed keeps its results, and nothing that it started outlives it."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.bench.all.stages import LEAVES_CHILDREN, OBEYS, ROOT, archived, is_running


def start_alone(tmp_path, programs: dict[str, str]) -> subprocess.Popen:
    """The runner in a process of its own, with these programs."""
    code = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from bench.all import plan, runner
from tests.bench.all.stages import commands
plan.commands = commands({programs!r})
sys.exit(runner.main(["--out", {str(tmp_path / "out")!r}, "--minutes", "9"]))
"""
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def wait_for(path: Path, text: str) -> None:
    deadline = time.monotonic() + 60
    while not (path.exists() and text in path.read_text()):
        assert time.monotonic() < deadline, f"no {text!r} in {path}"
        time.sleep(0.05)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
def test_a_request_to_end_ends_the_stage_and_keeps_its_results(tmp_path, number):
    process = start_alone(tmp_path, {"step": OBEYS})
    wait_for(tmp_path / "out/logs/step.log", "alive")
    process.send_signal(number)
    assert process.wait(30) == 128 + number
    record = json.loads((tmp_path / "out/all.json").read_text())
    assert record["interrupted"] == number.name and record["failures"] == []
    assert record["suites"]["step"]["rows"] == [1] and "soak" not in record["stages"]
    assert json.loads(archived(tmp_path / "out/all.tar.gz")["out/all.json"]) == record


def test_a_gate_that_is_interrupted_has_not_failed(tmp_path):
    process = start_alone(tmp_path, {"gate": OBEYS})
    wait_for(tmp_path / "out/logs/gate-conv_relu.log", "alive")
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 128 + signal.SIGINT
    record = json.loads((tmp_path / "out/all.json").read_text())
    assert record["interrupted"] == "SIGINT" and record["failures"] == [] and record["gate"]["passed"] is None
    assert record["gate"]["ops"]["conv_relu"]["why_not"] == "interrupted, 0 passed by then"


def test_a_killed_runner_leaves_what_was_complete_and_nothing_running(tmp_path):
    says_who = "import os\n" + LEAVES_CHILDREN + "\nprint(os.getpid(), flush=True)\nimport time; time.sleep(3600)"
    process = start_alone(tmp_path, {"step": says_who})
    log = tmp_path / "out/logs/step.log"
    wait_for(log, "\n")
    while len(log.read_text().split("\n")) < 4:
        time.sleep(0.05)
    process.kill()
    process.wait()
    record = json.loads((tmp_path / "out/all.json").read_text())
    assert set(record["stages"]) == {"smoke", "gate", "tune", "gain"} and record["gate"]["passed"]
    files = archived(tmp_path / "out/all.tar.gz")
    assert json.loads(files["out/all.json"]) == record and "out/smoke.json" in files
    deadline = time.monotonic() + 60
    while any(is_running(int(pid)) for pid in log.read_text().split()):
        assert time.monotonic() < deadline, "a stage outlives its run"
        time.sleep(0.05)
