"""The soak finds a leak, a result that changes, and an answer that went to somebody else."""

import itertools
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bench.inference import bench_soak
from bench.inference.bench_soak import Reading, main, verdicts, wrong_from_threads
from bench.measuring.verdicts import Verdict
from bench.reporting import suite

ROOT = Path(__file__).parents[2]


def test_a_short_soak_passes_and_is_recorded(tmp_path, capsys):
    out = tmp_path / "soak.json"
    assert main(["--tiny", "--out", str(out)]) == 0
    record = json.loads(out.read_text())
    assert [row["calls"] for row in record["rows"]] == list(range(2, 401, 2))
    assert all(row["wrong"] == 0 and row["memory_mib"] > 50 for row in record["rows"])
    assert record["tiny"] and len(record["verdicts"]) == 3 and out.with_suffix(".png").exists()
    assert "results that changed in 400 calls <= 0: PASS, 0" in capsys.readouterr().out


@pytest.mark.parametrize("leak_mib, passes", [(0.0, True), (2.0, True), (20.0, False)])
def test_a_leak_is_seen(leak_mib, passes):
    rows = [Reading(i, float(i), 300 + 50 * (i < 20) + leak_mib * i / 100, 0) for i in range(1, 101)]
    assert verdicts(rows)[0].passes is passes


def test_results_that_change_are_seen():
    rows = [Reading(i, float(i), 300.0, int(i == 8)) for i in range(1, 9)]
    assert not verdicts(rows)[1].passes


class Confused:
    """Gives one caller's answer to another."""

    device = torch.device("cpu")

    def __init__(self):
        self.calls = itertools.count()

    def reconstruct(self, x: torch.Tensor) -> torch.Tensor:
        call = next(self.calls)
        if call == 60:
            raise RuntimeError("out of answers")
        return x + (call == 20)


def test_wrong_answers_to_threads_are_counted():
    confused = Confused()
    assert wrong_from_threads(confused, rounds=5) == 1
    with pytest.raises(RuntimeError, match="out of answers"):
        wrong_from_threads(confused, rounds=5)


def test_a_result_that_changes_at_the_last_call_is_seen():
    class Late(Confused):
        def reconstruct(self, x: torch.Tensor) -> torch.Tensor:
            return x + (next(self.calls) == bench_soak.IMAGES + 102)  # the last of 103

    report = suite.Report("a soak")
    bench_soak.serve(Late(), 103, report, samples=10)
    assert [(row.calls, row.wrong) for row in report.rows[-2:]] == [(100, 0), (103, 1)]


def test_a_crash_leaves_the_readings_until_then(tmp_path, monkeypatch):
    report, kept = suite.Report("a soak", path=tmp_path / "soak.json"), []

    class Seen(Confused):
        def reconstruct(self, x: torch.Tensor) -> torch.Tensor:
            if report.path.exists():
                kept.append(len(json.loads(report.path.read_text())["rows"]))
            return x

    monkeypatch.setattr(bench_soak, "_KEEP_S", 0.0)
    bench_soak.serve(Seen(), 10, report, samples=5)
    assert kept == [1, 1, 2, 2, 3, 3, 4, 4]


def test_memory_is_what_the_process_holds():
    """In a process of its own: what other tests left is given back at moments of its own choice."""
    code = (
        "import numpy as np; from bench.inference.bench_soak import memory_mib\n"
        "before = memory_mib(); block = np.ones(2**26, np.uint8); print(memory_mib() - before)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert 56 < float(done.stdout) < 72, done.stderr


def test_a_soak_that_fails_is_recorded_and_ends_with_1(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(bench_soak, "wrong_from_threads", lambda *_, **__: 3)
    out = tmp_path / "soak.json"
    assert main(["--tiny", "--out", str(out)]) == 1
    assert json.loads(out.read_text())["verdicts"][-1]["value"] == 3
    assert "wrong answers to 8 threads <= 0: FAIL, 3" in capsys.readouterr().out


def test_a_time_limit_leaves_verdicts_on_the_calls_until_then(tmp_path, monkeypatch):
    def until(fast, calls, report):
        report.rows += [Reading(i, float(i), 300.0, 0) for i in range(1, 11)]
        raise SystemExit(143)

    monkeypatch.setattr(bench_soak, "serve", until)
    out = tmp_path / "soak.json"
    with pytest.raises(SystemExit, match="143"):
        main(["--tiny", "--out", str(out)])
    names = [verdict["name"] for verdict in json.loads(out.read_text())["verdicts"]]
    assert names == ["memory grown over 10 calls", "results that changed in 10 calls", "wrong answers to 8 threads"]
    assert verdicts([]) == [] and len(verdicts([Reading(1, 1.0, 300.0, 0)])) == 1  # too few to judge memory


def test_a_place_that_cannot_be_written_is_said_before_the_work(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(bench_soak, "serve", lambda *_: pytest.fail("it began"))
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemExit) as ended:
        main(["--tiny", "--out", str(tmp_path / "file" / "soak.json")])
    assert ended.value.code == 2 and "is not a folder that can be written into" in capsys.readouterr().err


def test_verdicts_in_words():
    assert str(Verdict("call", "<=", 2.0, 1.0, (0.9, 1.1), "ms")) == "call <= 2 ms: PASS, 1 ms (0.9 to 1.1), margin 2 x"
    assert str(Verdict("times", ">=", 2.0, 1.5, (1.5, 1.5))) == "times >= 2: FAIL, 1.5, margin 0.75 x"
    assert str(Verdict("wrong", "<=", 0, 0, (0, 0))) == "wrong <= 0: PASS, 0"
    for sense in ("<=", ">="):
        for target, value in ((1.0, float("nan")), (float("nan"), 1.0)):
            assert not Verdict("ms", sense, target, value, (value, value)).passes
