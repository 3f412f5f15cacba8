"""The folder that a run leaves: its name and its place."""

import json
import re
import shutil
import tempfile
from pathlib import Path

import pytest

from bench.all import plan, runner
from bench.reporting.record import RECORDS
from tests.bench.all.stages import commands


def test_the_folder_is_named_after_the_machine_and_old_ones_stay(monkeypatch, tmp_path):
    monkeypatch.setattr(plan, "commands", commands({}))
    monkeypatch.setattr(runner, "RECORDS", tmp_path / "records")
    for _ in range(2):
        assert runner.main(["--only", "soak", "--minutes", "1"]) == 0
    assert sorted(path.name for path in (tmp_path / "records").iterdir()) == [
        "2026-01-01-trial-all",
        "2026-01-01-trial-all-2",
    ]
    assert {"all.json", "all.tar.gz", "soak.json", "logs"} <= {
        path.name for path in (tmp_path / "records/2026-01-01-trial-all").iterdir()
    }


def test_a_folder_with_something_in_it_is_refused(tmp_path, capsys):
    (tmp_path / "letter.txt").write_text("mine")
    with pytest.raises(SystemExit, match="2"):
        runner.main(["--out", str(tmp_path)])
    assert "expected a new or empty folder" in capsys.readouterr().err


def test_tiny_figures_do_not_come_into_the_records(capsys):
    with pytest.raises(SystemExit, match="2"):
        runner.main(["--tiny"])
    assert "--tiny needs --out" in capsys.readouterr().err


def refuse(*arguments):
    raise OSError(30, "Read-only file system")


def test_records_that_cannot_be_written_into(monkeypatch, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(plan, "commands", commands({}))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for records, message in ((tmp_path / "file/records", "no results can be kept in"), (tmp_path, "cannot be written")):
        monkeypatch.setattr(runner, "RECORDS", records)
        with monkeypatch.context() as patch:
            patch.setattr(shutil, "move", refuse)
            assert runner.main(["--only", "soak", "--minutes", "1"]) == 0
        said = capsys.readouterr().out
        folder = Path(re.search(rf"{message}.*; the results are in (\S+)", said)[1])
        record = json.loads((folder / "all.json").read_text())
        assert record["suites"]["soak"]["rows"] == [1] and "failures" in record["stages"]["smoke"]


def test_the_default_place_is_read_for_the_tables():
    assert runner.RECORDS == RECORDS
