"""The tables, and files that cannot be written."""

import json

import pytest

from fastvae.errors import FastvaeError, UsageError
from fastvae.files.atomic_write import check_writable
from fastvae.latency import report
from fastvae.latency.measure import Cell, Latency
from fastvae.latency.start import Start

FAST, PLAIN = Latency(1.0, 1.5, 2.0, 1000.0, 10), Latency(3.0, 3.5, 4.25, 333.3, 10)
CELL = Cell("encode", 1, FAST, PLAIN, 1.25e-7)
START = Start("plain", 64, 2.5, 1.25, 0.0, 0.5, 4.25, 812.4, None)


def test_a_row_says_what_was_measured():
    *_, row = report.cells_table([CELL]).splitlines()
    assert " ".join(row.split()) == "encode 1 1.000 1.500 2.000 1,000 3.000 3.500 4.250 333 3.00 x 1.2e-07 10"


def test_a_start_says_what_it_took():
    *_, row = report.starts_table([START]).splitlines()
    assert " ".join(row.split()) == "plain 64 2.50 1.25 0.00 0.50 4.25 812 MiB"


def test_tables_are_aligned_and_narrow():
    for table in (report.cells_table([CELL, CELL]), report.starts_table([START, START])):
        head, *rows = table.splitlines()[-3:]
        assert max(len(line) for line in rows) <= 130
        assert all(abs(len(row) - len(head)) <= 1 for row in rows)


def test_json_holds_all(tmp_path):
    report.write(tmp_path / "new" / "x.json", run="faces", complete=True, cells=[CELL], starts=[START])
    values = json.loads((tmp_path / "new" / "x.json").read_text())
    assert values["run"] == "faces" and values["complete"] is True
    assert values["cells"][0]["speedup"] == 3.0 and values["cells"][0]["plain"]["p99_ms"] == 4.25
    assert values["starts"][0]["peak_gpu_mib"] is None
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["x.json"]


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    path = tmp_path / "file" / "x.json"
    with pytest.raises(UsageError, match="file is not a folder that can be written into"):
        check_writable(path)
    with pytest.raises(FastvaeError, match="choose another --out"):
        report.write(path, cells=[], starts=[])
    check_writable(tmp_path / "to" / "be" / "made.json")
