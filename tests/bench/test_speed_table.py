"""The pages about speed are made of the newest record of each machine, and the committed ones are up to date."""

import json
import re
import sys

import numpy as np
import pytest
from PIL import Image

from bench import speed_chart, speed_table
from bench.__main__ import main as bench_main
from bench.all import plan
from bench.reporting.marked_text import replaced
from bench.reporting.newest_records import newest
from bench.reporting.record import RECORDS
from bench.suites import SUITES, Suite
from bench.tables import Headline
from tests.bench.suite_records import ACCELERATE, CPU, GPU, LOADER, named, step


def test_one_suite_on_a_gpu_is_enough_not_to_say_that_there_is_none(folder):
    where = folder(
        **{named(1, "cpu_step"): step(CPU, 1.0), named(1, "cpu_loader"): LOADER, named(1, "h200_step"): step(GPU, 0.5)}
    )
    assert speed_table.NO_GPU not in speed_table.summary(where)


def test_it_replaces_what_is_between_the_marks():
    readme = "before\n<!-- speed -->\nold\n<!-- /speed -->\nafter\n"
    new = replaced(readme, "speed", "new")
    assert new == "before\n<!-- speed -->\nnew\n<!-- /speed -->\nafter\n"
    assert replaced(new, "speed", "new") == new
    with pytest.raises(ValueError, match="once each"):
        replaced("no marks", "speed", "new")


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A checkout with one record and a README."""
    for name in ("bench/records", "docs"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "README.md").write_text("# Ours\n<!-- speed -->\nold\n<!-- /speed -->\n")
    (tmp_path / "bench/records/2026-01-01-cpu-step.json").write_text(json.dumps(step(CPU, 1.5)))
    monkeypatch.setattr(speed_table, "ROOT", tmp_path)
    return tmp_path


def test_pages_are_written_and_checked(checkout, capsys):
    assert speed_table.main(["--check"]) == 1
    assert "out of date: bench/records/README.md, README.md, docs/speed.png" in capsys.readouterr().out
    assert "old" in (checkout / "README.md").read_text()
    assert speed_table.main([]) == 0 and speed_table.main(["--check"]) == 0
    assert "agree with the records" in capsys.readouterr().out
    said = (checkout / "README.md").read_text()
    assert "- Training step, 64x64, width 32, without torch.compile: 42.7 images/s, **1.33 times**" in said
    assert (checkout / "docs/speed.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", ["bench/records/README.md", "README.md", "docs/speed.png"])
def test_every_page_follows_the_records(name, checkout, capsys):
    assert speed_table.main([]) == 0
    pages = {path: path.read_bytes() for path in checkout.rglob("*") if path.suffix in (".md", ".png")}
    (checkout / "bench/records/2026-01-02-cpu-step.json").write_text(json.dumps(step(CPU, 1.0)))
    assert speed_table.main(["--check"]) == 1 and name in capsys.readouterr().out
    assert {path: path.read_bytes() for path in pages} == pages  # --check writes nothing
    assert speed_table.main([]) == 0 and (checkout / name).read_bytes() != pages[checkout / name]


def test_a_label_of_any_length_is_in_the_chart(tmp_path):
    first = Headline("Training step, 64x64, width 32, without torch.compile", "1 ms", 2.0, 1.5, 2.5, "a peer")
    second = first._replace(title="short", peer="a peer of a name that is longer " * 2)
    speed_chart.draw("a machine", [first, second], tmp_path / "chart.png")
    with Image.open(tmp_path / "chart.png") as drawn:
        ink = np.asarray(drawn.convert("L")) < 160
    assert ink.any() and not any(edge.any() for edge in (ink[:3], ink[-3:], ink[:, :3], ink[:, -3:]))


def test_the_committed_tables_and_the_chart_say_what_the_newest_records_say():
    assert (RECORDS / "README.md").read_text() == speed_table.page(RECORDS), "run python -m bench.speed_table"
    measured = speed_table.headlined(RECORDS)
    shown = speed_table.names(measured), [headline for _, headline in measured]
    assert speed_chart.shows(speed_table.ROOT / "docs/speed.png", *shown), "run python -m bench.speed_table"


def test_every_link_of_the_committed_page_leads_to_a_record():
    targets = re.findall(r"\]\(([^)]+)\)", (RECORDS / "README.md").read_text())
    assert targets and all((RECORDS / target).is_file() for target in targets)


def test_the_summary_has_a_line_for_each_suite_with_peers():
    lines = speed_table.summary(RECORDS).split("\n- ")
    assert len(lines) == 1 + len(speed_table.headlined(RECORDS))
    assert sum(suite.headline is not None for suite in SUITES.values()) == 6  # as many lines as a README bears
    assert all("times** as fast as" in line for line in lines[1:])


def test_the_summary_is_of_one_machine_a_gpu_before_a_cpu(folder):
    where = folder(**{named(1, "h200_step"): step(GPU, 0.5), named(2, "cpu_step"): step(CPU, 1.0)})
    text = speed_table.summary(where)
    assert "On NVIDIA H200" in text and "on a GPU yet" not in text
    said = "- Training step, 64x64, width 32, without torch.compile: 128 images/s, **4.00 times** as fast as"
    assert f"{said} plain eager fp32 (3.20 to" in text.replace("\n  ", " ")
    assert speed_table.summary(folder().parent / "nowhere") == "Nothing has been measured yet."


def test_an_added_suite_is_everywhere(folder, monkeypatch, capsys):
    """In the command, in `all`, among the newest records and in the tables: there is one list."""
    extra = Suite("nowhere", lambda record: f"of {record.link}: {record.rows}", seconds=1)
    monkeypatch.setitem(SUITES, "extra", extra)
    monkeypatch.setattr(sys, "argv", ["bench", "--help"])
    assert bench_main() == 0 and "soak,extra,all}" in capsys.readouterr().err
    assert plan.stages()[-1] == "extra"
    record = {"machine": CPU, "rows": [1]}
    assert "of 2026-01-01-cpu-extra.json: [1]" in speed_table.page(folder(**{named(1, "cpu_extra"): record}))
    both = {"suites": {"extra": record, "unknown": record}}
    assert "of 2026-01-02-cpu-all.json: [1]" in speed_table.page(folder(**{named(2, "cpu_all"): both}))


def test_a_record_of_all_gives_every_table(folder):
    alone = newest(RECORDS, SUITES)["cpu"]
    assert alone.keys() == SUITES.keys(), "a suite without a record: python -m bench SUITE"
    together = {name: record.content for name, record in alone.items()}
    text = speed_table.page(folder(**{named(1, "cpu_all"): {"suites": together}}))
    tables = [suite.table(alone[name]) for name, suite in SUITES.items()]
    assert without_links(text).endswith(without_links("\n\n".join(tables)) + "\n")
    assert text.count("](2026-01-01-cpu-all.json)") == len(SUITES)


def without_links(text: str) -> str:
    return re.sub(r"\[[^]]*\]\([^)]*\)", "", text)


def test_every_module_with_a_suite_is_in_the_list():
    files = (speed_table.ROOT / "bench").rglob("bench_*.py")
    modules = {".".join(file.relative_to(speed_table.ROOT).with_suffix("").parts) for file in files}
    assert modules == {suite.module for suite in SUITES.values()}


def test_lines_from_different_processors_say_so(folder):
    newer = {**ACCELERATE, "machine": {**CPU, "cpu": "AVX2"}}
    where = folder(**{named(1, "cpu_step"): step(CPU, 1.5), named(2, "cpu_accelerate"): newer})
    text = " ".join(speed_table.summary(where).split())
    assert "On CPU (AVX512, 2 threads) and CPU (AVX2, 2 threads), torch 2.13.0+cpu;" in text
    assert text.count("), AVX512.") == text.count("), AVX2.") == 1
