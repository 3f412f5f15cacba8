"""What all suites stand on: clock, record, the way into pytest-benchmark, and the command."""

import argparse
import itertools
import json
import math
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch

from bench import __main__
from bench.measuring import replay
from bench.measuring.ceilings import Ceilings
from bench.measuring.clock import detached, interleaved, latencies, turns
from bench.measuring.row import Row
from bench.measuring.verdicts import Verdict
from bench.reporting import record, suite
from bench.suites import SUITES
from fastvae.errors import FastvaeError

ROOT = Path(__file__).parents[2]
COMMANDS = [*SUITES, "all"]


def test_a_record_has_a_line_for_each_list_of_samples(tmp_path):
    path = tmp_path / "new" / "record.json"
    rows = [{"name": "a", "quartiles_ms": (1.0, 2.0), "samples_ms": [1.0, 1.5, 2.0]}]
    record.write(path, what="a trial", rows=rows, notes=["none"], extra={"verdicts": [1, 2]})
    text = path.read_text()
    assert '"quartiles_ms": [1.0, 2.0],\n' in text and '"samples_ms": [1.0, 1.5, 2.0]\n' in text
    read = json.loads(text)
    assert read["rows"] == [{"name": "a", "quartiles_ms": [1.0, 2.0], "samples_ms": [1.0, 1.5, 2.0]}]
    assert (read["ceilings"], read["verdicts"], read["notes"]) == (None, [1, 2], ["none"])
    assert read["machine"]["torch"] == torch.__version__
    assert [p.name for p in path.parent.iterdir()] == ["record.json"]
    record.write(path, what="with ceilings", rows=[], notes=[], ceilings=Ceilings(10.0, {"float32": 0.1}))
    assert json.loads(path.read_text())["ceilings"]["copy_gb_per_s"] == 10.0


def test_a_row_is_recorded_flat_and_in_its_unit():
    timed = Row.from_seconds("fastvae eager", [0.001, 0.002, 0.003], "ms", job={"batch": 8}, details={"error": 0.5})
    assert timed.is_ours and timed.median == 2.0 and timed.quartiles == (1.5, 2.5)
    assert timed.seconds == pytest.approx([0.001, 0.002, 0.003])
    samples = {"median_ms": 2.0, "quartiles_ms": [1.5, 2.5], "samples_ms": [1.0, 2.0, 3.0]}
    assert timed.as_json() == {"contender": "fastvae eager", "batch": 8, "error": 0.5, **samples}
    rate = Row("torch", "images_per_s", [10.04])
    assert not rate.is_ours
    assert rate.as_json() == {
        "contender": "torch", "images_per_s": 10.0, "quartiles_images_per_s": [10.0, 10.0],
        "samples_images_per_s": [10.0],
    }  # fmt: skip


def test_records_are_named_by_date_machine_and_suite(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA GeForce GTX 1080 Ti")
    path = record.path_for("step")
    assert path.parent == ROOT / "bench" / "records"
    assert path.name[10:] == "-geforce-gtx-1080-ti-step.json" and path.name[:10] == time.strftime("%Y-%m-%d")
    monkeypatch.setattr(record, "RECORDS", tmp_path)
    for number in ("", "-2", "-3"):  # of one day; none replaces another
        path = record.path_for("step")
        assert path.name[10:] == f"-geforce-gtx-1080-ti-step{number}.json"
        path.touch()


def no_failure(name, error):
    raise error


@pytest.mark.parametrize("timed", [interleaved, partial(latencies, drop=no_failure)])
def test_takes_turns(timed):
    calls = []
    contenders = {name: lambda name=name: calls.append(name) for name in "ab"}
    samples = timed(contenders, rounds=3, device="cpu")
    assert "".join(calls).endswith("ababab")
    assert list(samples) == ["a", "b"] and all(len(s) == 3 for s in samples.values())


# An AssertionError is what compiled code raises for strides that it does not expect.
@pytest.mark.parametrize("error", [RuntimeError("no such kernel\nwith details"), AssertionError("no such kernel")])
@pytest.mark.parametrize("at", [1, 3, 5], ids=["the first call", "the last to warm up", "the second timed one"])
def test_one_that_fails_costs_the_others_nothing(error, at):
    def failing():
        calls = itertools.count(1)

        def call():
            if next(calls) == at:
                raise error

        return call

    said, dropped = [], []
    samples = interleaved({"a": failing(), "b": lambda: None}, rounds=3, device="cpu", note=said.append)
    assert list(samples) == ["b"] and len(samples["b"]) == 3
    assert said == ["left out: a does not run or cannot be captured: no such kernel"]
    contenders = {"a": failing(), "b": lambda: None}
    samples = latencies(contenders, rounds=3, device="cpu", drop=lambda *failed: dropped.append(failed))
    assert list(samples) == ["b"] and len(samples["b"]) == 3 and dropped == [("a", error)]


def test_turns_end_when_nobody_is_left():
    def fails():
        raise RuntimeError("no memory")

    dropped = []
    rounds = list(turns({"a": fails, "b": fails}, "cpu", lambda name, error: dropped.append(name)))
    assert rounds == [{}] and dropped == ["a", "b"]


@pytest.mark.gpu
@pytest.mark.parametrize("captured", [True, False])
def test_launches_count_unless_captured(captured):
    x, launches = torch.ones(8, device="cuda"), []

    def launch():
        launches.append(len(launches))
        x.add_(1)

    counts = []
    for rounds in (3, 8):
        launches.clear()
        interleaved({"a": launch}, rounds=rounds, device="cuda", captured=captured)
        counts.append(len(launches))
    assert counts[1] - counts[0] == (0 if captured else 5)


@pytest.mark.gpu
def test_a_latency_lasts_until_the_results_are_there():
    a = torch.randn(4096, 4096, device="cuda")

    def call():
        for _ in range(20):
            a @ a

    (seconds,) = latencies({"a": call}, rounds=3, device="cuda").values()
    (on_the_device,) = interleaved({"a": call}, rounds=3, device="cuda", captured=False).values()
    assert min(seconds) > 0.5 * min(on_the_device)  # of launches alone it would be a hundredth


class Pedantic:
    """pytest-benchmark's fixture, as far as its `pedantic` goes."""

    def pedantic(self, target, setup, rounds, iterations):
        assert iterations == 1
        self.durations = []
        for _ in range(rounds):
            assert setup() is None
            start = replay.clock()
            target()
            self.durations.append(replay.clock() - start)


def test_samples_are_replayed_exactly():
    benchmark = Pedantic()
    replay.hand_over(benchmark, iter([0.1, 1e-6, 3.3]))
    assert benchmark.durations == [0.1, 1e-6, 3.3]


@pytest.mark.parametrize("name", COMMANDS)
def test_a_place_that_cannot_be_written_is_refused_before_the_work(name, tmp_path, capsys, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(sys, "argv", ["bench", name, "--tiny", "--out", str(tmp_path / "file" / "x.json")])
    with pytest.raises(SystemExit) as ended:
        __main__.main()
    assert ended.value.code == 2 and "is not a folder that can be written into" in capsys.readouterr().err


@pytest.mark.parametrize("name", SUITES)
def test_tiny_figures_do_not_come_into_the_records(name, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["bench", name, "--tiny"])
    with pytest.raises(SystemExit, match="2"):
        __main__.main()
    assert "--tiny needs --out" in capsys.readouterr().err


def test_a_record_s_command_does_not_name_its_place(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["bench/__main__.py", "step", "--out", "/somewhere/x.json", "--tiny"])
    assert record.command() == "python -m bench step --tiny"


def test_home_is_expanded_in_a_record_s_place(monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    assert record.place("~/x.json") == Path("/home/somebody/x.json")
    for nowhere in ("", "~nobody-of-this-name/x.json"):
        with pytest.raises(argparse.ArgumentTypeError):
            record.place(nowhere)


def test_pytest_benchmark_reports_the_samples_taken_in_turns(tmp_path):
    pytest.importorskip("pytest_benchmark")
    out = tmp_path / "benchmarks.json"
    command = [sys.executable, "-m", "pytest", "bench/step/bench_step.py", "--tiny", "-q", f"--benchmark-json={out}"]
    # Whatever the processor has, in float32: without AVX512 it is the best precision there is.
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2"}
    # A worker's own variable: pytest-benchmark measures nothing where it finds it.
    environment.pop("PYTEST_XDIST_WORKER", None)
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout
    benchmarks = json.loads(out.read_text())["benchmarks"]
    names = {b["name"] for b in benchmarks}
    assert "test_step[plain eager fp32]" in names and any("fastvae" in name for name in names)
    assert all(len(b["stats"]["data"]) == 2 and b["stats"]["min"] > 0 for b in benchmarks)


def measured(tmp_path: Path, error: BaseException | None) -> int:
    """The exit status of a suite that measures one row and then ends so."""
    report = suite.Report("a trial", notes=["one thing was left out"])

    def measure():
        report.rows.append(Row("fastvae", "s", [1.0]))
        report.verdicts.append(Verdict("train", "<=", 2.0, 1.0, (1.0, 1.0), "h"))
        if error:
            raise error

    options = argparse.Namespace(out=tmp_path / "trial.json", tiny=False)
    return suite.run(report, options, measure, lambda path: path.write_bytes(b"picture"))


def test_a_suite_prints_what_it_measured(tmp_path, capsys):
    assert measured(tmp_path, None) == 0
    printed = capsys.readouterr().out
    assert "train <= 2 h: PASS, 1 h, margin 2 x\n" in printed and "note: one thing was left out\n" in printed
    assert f"{tmp_path / 'trial.json'} and its picture written" in printed


@pytest.mark.parametrize("error", [AssertionError("another function"), SystemExit(143), RuntimeError("it died")])
def test_the_record_is_written_whatever_ends_a_suite(error, tmp_path, capsys):
    if isinstance(error, AssertionError):
        assert measured(tmp_path, error) == 1
    else:
        with pytest.raises(type(error)):
            measured(tmp_path, error)
    read = json.loads((tmp_path / "trial.json").read_text())
    assert [row["contender"] for row in read["rows"]] == ["fastvae"] and read["verdicts"][0]["passes"]
    wrong = ["WRONG, not timed: another function" if isinstance(error, AssertionError) else suite.UNFINISHED]
    assert read["notes"] == ["one thing was left out", *wrong] and (tmp_path / "trial.png").exists()


def test_bad_input_is_one_line_and_no_record(tmp_path, capsys):
    def measure():
        raise FastvaeError("there is no file of that name")

    options = argparse.Namespace(out=tmp_path / "trial.json", tiny=False, suite="trial")
    assert suite.run(suite.Report("a trial"), options, measure) == 1
    assert capsys.readouterr().err == "python -m bench trial: there is no file of that name\n"
    assert not (tmp_path / "trial.json").exists()


def test_what_was_kept_outlives_a_crash(tmp_path):
    out = tmp_path / "trial.json"
    code = (
        "import argparse, os, signal; from pathlib import Path\n"
        "from bench.measuring.row import Row; from bench.reporting import suite\n"
        "report = suite.Report('a trial')\n"
        "report.keep()  # nowhere\n"
        "def measure():\n"
        "    report.rows.append(Row('fastvae', 'ms', [1.0]))\n"
        "    report.keep()\n"
        "    report.rows.append(Row('too late', 'ms', [1.0]))\n"
        "    report.keep(every_s=100.0)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        f"suite.run(report, argparse.Namespace(out=Path({str(out)!r}), tiny=False), measure)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == -signal.SIGKILL
    kept = json.loads(out.read_text())
    assert [row["contender"] for row in kept["rows"]] == ["fastvae"] and kept["notes"] == [suite.UNFINISHED]


def test_a_record_that_cannot_be_kept_costs_no_measurement(tmp_path):
    (tmp_path / "file").write_text("")
    suite.Report("a trial", path=tmp_path / "file" / "trial.json").keep()


def test_a_record_is_json_whatever_was_measured(tmp_path):
    path = tmp_path / "record.json"
    record.write(path, what="a trial", rows=[{"a": math.inf, "b": (1.0, math.nan)}], notes=[])
    read = json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert read["rows"] == [{"a": None, "b": [1.0, None]}]


def test_suites_need_no_more_than_a_bare_machine_has():
    """PyTorch, Triton, pytest and matplotlib, with what these bring."""
    modules = [suite.module for suite in SUITES.values()]
    modules += ["bench.speed_table", "bench.anatomy.profile_step", "tools.tune.__main__", "tests.conftest"]
    missing = dict.fromkeys(
        ["tyro", "tqdm", "safetensors", "nvidia", "onnxruntime", "openvino", "scipy", "sklearn", "xdist"]
    )
    code = f"import importlib, sys; sys.modules.update({missing})\nfor name in {modules}: importlib.import_module(name)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_an_unknown_suite_gets_a_hint(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["bench", "infrence"])
    assert __main__.main() == 2
    assert "no suite 'infrence', did you mean 'inference'?" in capsys.readouterr().err


@pytest.mark.parametrize("name", COMMANDS)
def test_every_suite_has_a_command(name, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["bench", name, "--help"])
    with pytest.raises(SystemExit, match="0"):
        __main__.main()
    assert "--tiny" in capsys.readouterr().out


def test_what_a_capture_keeps_has_no_graph_of_autograd():
    """It would keep the nodes of leaves alive that belong to the capture's stream and that later calls share."""
    x = torch.ones(2, requires_grad=True)
    loss = (x * 2).sum()
    kept = detached([loss, (x * 3, "name", None)])
    assert kept[0].grad_fn is None and torch.equal(kept[0], loss.detach())
    assert kept[1][0].grad_fn is None and kept[1][1:] == ["name", None]
