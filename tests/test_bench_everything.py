"""`python -m bench all`: gate first, every suite within its share, nothing that was measured is lost."""

import json
import sys
import time

import pytest

from bench import everything
from fastvae.errors import FastvaeError

# A suite: writes a record now and, asked to end, another one.
SUITE = """
import json, pathlib, signal, sys, time
path, seconds, deaf, rows, status = pathlib.Path(sys.argv[1]), *map(int, sys.argv[2:])
def write(rows):
    path.write_text(json.dumps({"rows": rows}))
    path.with_suffix(".png").write_bytes(b"picture")
def stop(*_):
    if not deaf:
        write(["half"] * rows)
        sys.exit(143)
signal.signal(signal.SIGTERM, stop)
if deaf:
    write(["early"])
until = time.monotonic() + seconds
while time.monotonic() < until:
    time.sleep(0.05)
write(["whole"] * rows)
sys.exit(status)
"""


@pytest.fixture
def all_of(monkeypatch, tmp_path):
    """Runs made-up suites, name -> (seconds, deaf to SIGTERM, rows, exit status), and returns status and record."""
    monkeypatch.setattr(everything, "GRACE_S", 0.5)

    def run(suites: dict[str, tuple[int, int, int, int]], *flags: str, gate: str = "pass"):
        monkeypatch.setattr(everything, "SHARES", dict.fromkeys(suites, 1))
        monkeypatch.setattr(everything, "gate_command", lambda **_: [sys.executable, "-c", gate])
        monkeypatch.setattr(
            everything,
            "suite_command",
            lambda name, path, tiny: [sys.executable, "-c", SUITE, str(path), *map(str, suites[name])],
        )
        out = tmp_path / "2026-01-01-cpu-all.json"
        return everything.main(["--out", str(out), *flags]), json.loads(out.read_text())

    return run


def test_records_and_pictures_are_merged(all_of, tmp_path):
    status, record = all_of({"a": (0, 0, 1, 0), "b": (0, 0, 2, 0)})
    assert status == 0 and record["gate"]["passed"] and record["machine"]["torch"]
    assert record["suites"] == {
        "a": {"rows": ["whole"], "command": "python -m bench a"},
        "b": {"rows": ["whole", "whole"], "command": "python -m bench b"},
    }
    assert [run["exit_status"] for run in record["runs"].values()] == [0, 0]
    assert sorted(p.name for p in tmp_path.glob("*.png")) == [f"2026-01-01-cpu-all-{name}.png" for name in "ab"]


def test_a_failed_gate_times_nothing_and_names_the_op(all_of, capsys):
    said = "FAILED tests/kernels/test_feature_loss_triton.py::test_odd_shapes - AssertionError"
    status, record = all_of({"a": (0, 0, 1, 0)}, gate=f"print({said!r}); raise SystemExit(1)")
    assert status == 1 and record["suites"] == {} and not record["gate"]["passed"]
    assert "FAILED: the gate: feature_loss (test_odd_shapes); nothing was timed" in capsys.readouterr().out


@pytest.mark.parametrize("deaf", [0, 1], ids=["asked_to_end", "killed"])
def test_a_suite_that_runs_over_is_stopped_and_what_it_wrote_is_kept(all_of, deaf, capsys):
    start = time.monotonic()
    status, record = all_of({"slow": (60, deaf, 1, 0), "quick": (0, 0, 1, 0)}, "--minutes", "0.06")
    assert time.monotonic() - start < 10
    assert status == 0 and record["suites"]["slow"]["rows"] == ["early" if deaf else "half"]
    assert record["runs"]["slow"]["exit_status"] is None and record["runs"]["quick"]["exit_status"] == 0
    assert "slow: up to 2 s" in capsys.readouterr().out
    run = record["runs"]["slow"]
    assert run["seconds"] <= run["limit_s"] + 0.3 and record["seconds"] < 5


def test_the_faces_are_drawn_before_the_suites_get_their_shares(all_of, monkeypatch, capsys):
    asked = []

    def draw(data, size):
        asked.append((data, size))
        time.sleep(1.2)

    monkeypatch.setattr(everything, "open_images", draw)
    _, record = all_of({"paper": (0, 0, 1, 0)}, "--minutes", "1")
    assert asked == [("faces", 64)] and "the embedded faces" in capsys.readouterr().out
    # The lower bound leaves a busy machine half a minute for the gate; the record rounds to a tenth.
    assert record["seconds"] >= 1.2 and 28 < record["runs"]["paper"]["limit_s"] <= 58.8
    all_of({"paper": (0, 0, 1, 0)}, "--tiny")
    all_of({"step": (0, 0, 1, 0)})
    assert len(asked) == 1


def test_faces_that_cannot_be_drawn_cost_the_others_nothing(all_of, monkeypatch, capsys):
    def fails(data, size):
        raise FastvaeError("no room left")

    monkeypatch.setattr(everything, "open_images", fails)
    status, record = all_of({"paper": (0, 0, 1, 0), "step": (0, 0, 1, 0)})
    assert status == 0 and set(record["suites"]) == {"paper", "step"}
    assert "the embedded faces: no room left" in capsys.readouterr().out


@pytest.mark.parametrize("limit_s", [0.0, 0.4, 2.0])
def test_no_limit_is_overrun(limit_s):
    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(30)"
    run = everything.run_for([sys.executable, "-c", deaf], limit_s)
    assert run.exit_status is None and run.seconds <= limit_s + 0.3


def test_time_that_is_left_over_goes_to_the_next(all_of):
    _, record = all_of({"a": (0, 0, 1, 0), "b": (0, 0, 1, 0)}, "--minutes", "1")
    first, second = (run["limit_s"] for run in record["runs"].values())
    assert first == pytest.approx(30, abs=5) and second == pytest.approx(60, abs=5)


@pytest.mark.parametrize(
    ("suite", "words"),
    [
        ((0, 0, 1, 3), "bad ended with exit status 3"),
        ((0, 0, 0, 0), "bad measured nothing"),
        ((60, 0, 0, 0), "bad measured nothing, stopped when its time was over"),
    ],
)
def test_a_suite_that_fails_costs_the_others_nothing(all_of, suite, words, capsys):
    status, record = all_of({"bad": suite, "good": (0, 0, 1, 0)}, "--minutes", "0.06")
    assert status == 1 and record["suites"]["good"]["rows"] == ["whole"]
    assert f"FAILED: {words}" in capsys.readouterr().out


def test_only_what_is_asked_for(all_of):
    _, record = all_of({"a": (0, 0, 1, 0), "b": (0, 0, 1, 0)}, "--only", "b")
    assert set(record["suites"]) == {"b"}


def test_a_gate_that_tests_nothing_has_not_passed(all_of):
    nothing = "print('347 deselected in 3.00s'); raise SystemExit(5)"
    status, record = all_of({"a": (0, 0, 1, 0)}, gate=nothing)
    assert status == 1 and record["gate"]["failed"] == "347 deselected in 3.00s"


def test_the_gate_is_real():
    command = everything.gate_command(on_gpu=False)
    gate = everything.check([*command, "-k", "test_one_layer"], time.monotonic() + 300)
    assert gate["passed"] and "passed" in gate["summary"]
