"""bench.anatomy.profile_step: a run leaves trace and table."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("matplotlib")

from bench.anatomy import profile_step
from bench.anatomy.device_trace import idle_share
from bench.anatomy.table import STEP, PartRow, largest_gaps
from bench.measuring.ceilings import Ceilings

PARTS = (
    "loss network, real", "loss network, generated", "loss network, backward", "encoder", "decoder", "critic",
    "feature loss", "optimiser, vae", "optimiser, critic", "loader wait", "gaps and the rest",
)  # fmt: skip
WRONG = (["--steps", "0"], ["--recipe", "celeba"], ["--data", "/nowhere"], ["--batch-size", "1"])


def test_it_leaves_a_trace_and_a_table(tmp_path, capsys, monkeypatch, processor):
    processor()
    limits = Ceilings(10.0, {"float32": 0.1, "bfloat16": 0.1})  # measuring them takes seconds
    monkeypatch.setattr(profile_step.ceilings, "measure", lambda *_, **__: limits)
    out = tmp_path / "profile"
    assert profile_step.main(["--tiny", "--steps", "2", "--rounds", "1", "--out", str(out)]) == 0
    table = (out / "step.txt").read_text()
    assert table.strip() in capsys.readouterr().out and "largest gaps between time and floor: " in table
    names = {event.get("name") for event in json.loads((out / "trace.json").read_text())["traceEvents"]}
    assert "aten::convolution_backward" in names
    record = json.loads((out / "step.json").read_text())
    assert set(PARTS) < {row["part"] for row in record["rows"]}
    assert all(row["flops"] > 0 and row["bytes"] > 0 for row in record["rows"] if row["floor_us"] > 0)
    assert len(record["largest_gaps"]) == 3
    assert (out / "step.png").read_bytes().startswith(b"\x89PNG")
    if record["machine"]["gpu"] is None:
        assert record["idle_share"] is None and "not defined" in table


def test_a_time_limit_leaves_the_trace_and_the_complete_step(tmp_path, monkeypatch, processor):
    processor()
    limits = Ceilings(10.0, {"float32": 0.1, "bfloat16": 0.1})
    monkeypatch.setattr(profile_step.ceilings, "measure", lambda *_, **__: limits)
    monkeypatch.setattr(profile_step.table, "measure", lambda *_, **__: signal.raise_signal(signal.SIGTERM))
    monkeypatch.setattr(profile_step.tempfile, "tempdir", str(tmp_path))
    before = signal.signal(signal.SIGTERM, lambda *_: pytest.fail("nothing was done against SIGTERM"))
    try:
        with pytest.raises(SystemExit, match="143"):
            profile_step.main(["--tiny", "--steps", "2", "--out", str(tmp_path / "profile")])
    finally:
        signal.signal(signal.SIGTERM, before)
    assert {path.name for path in (tmp_path / "profile").iterdir()} == {"trace.json", "step.json"}
    assert [path.name for path in tmp_path.iterdir()] == ["profile"]
    record = json.loads((tmp_path / "profile" / "step.json").read_text())
    assert [row["part"] for row in record["rows"]] == ["loader wait", STEP]
    assert record["rows"][1]["median_us"] > 0 and record["rows"][1]["share"] == 1
    assert record["notes"] == ["the run ended before its parts were timed"]


def test_it_starts_as_contributing_says():
    command = [sys.executable, "-m", "bench.anatomy.profile_step", "--help"]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert done.returncode == 0 and "--recipe" in done.stdout, done.stderr


@pytest.mark.parametrize("flags", WRONG, ids=lambda flags: flags[0])
def test_wrong_flags_are_explained(flags, tmp_path, capsys, monkeypatch, processor):
    processor()
    monkeypatch.chdir(tmp_path)
    try:
        code = profile_step.main(flags)
    except SystemExit as stopped:
        code = stopped.code
    message = capsys.readouterr().err
    assert code in (1, 2) and flags[1] in message and "Traceback" not in message


def trace(tmp_path, *events: tuple[str, float, float]) -> Path:
    path = tmp_path / "trace.json"
    named = [{"ph": "X", "cat": cat, "ts": start, "dur": length, "name": cat} for cat, start, length in events]
    path.write_text(json.dumps({"traceEvents": [{"ph": "M", "name": "process_name"}, *named]}))
    return path


def test_idle_share_by_hand(tmp_path):
    # Busy 10 to 20 and, by two streams that overlap, 30 to 45; the annotation and the host do not count.
    events = [("kernel", 30.0, 10.0), ("gpu_memcpy", 35.0, 10.0), ("kernel", 10.0, 10.0), ("kernel", 31.0, 2.0)]
    ignored = [("gpu_user_annotation", 0.0, 100.0), ("cpu_op", 0.0, 100.0)]
    assert idle_share(trace(tmp_path, *events, *ignored)) == pytest.approx(10 / 35)
    assert idle_share(trace(tmp_path, *ignored)) is None


def test_largest_gaps_leave_out_the_whole():
    def row(part, median, floor):
        return PartRow(part, median, (median, median), 1, 1, floor, floor / median, 0.1, [median])

    rows = [row("a", 10, 9), row("b", 5, 0.1), row("c", 8, 5), row("d", 4, 3.5), row(STEP, 99, 1)]
    assert [r.part for r in largest_gaps(rows)] == ["b", "c", "a"]
