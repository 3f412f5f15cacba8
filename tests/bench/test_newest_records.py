"""Of each machine and suite the newest complete record counts."""

import json

from bench import speed_table
from bench.reporting.newest_records import UNFINISHED, newest
from bench.suites import SUITES
from tests.bench.suite_records import CPU, GPU, PAPER, SOAK, named, step


def test_the_newest_of_each_machine(folder):
    where = folder(
        **{
            named(1, "cpu_step"): step(CPU, 1.5),
            named(9, "cpu_step"): step(CPU, 1.0),
            named(3, "h200_all"): {"suites": {"step": step(GPU, 0.5), "paper": PAPER}},
            named(2, "h200_step"): step(GPU, 0.4),
            named(9, "cpu_curve"): {"machine": CPU},
        }
    )
    records = newest(where, SUITES)
    assert list(records) == ["h200", "cpu"]  # GPUs first
    assert {suite: record.date for suite, record in records["h200"].items()} == {
        "step": "2026-01-03",
        "paper": "2026-01-03",
    }
    assert records["cpu"]["step"].date == "2026-01-09"


def test_of_one_day_the_suites_own_record_counts(folder):
    where = folder(
        **{named(3, "h200_all"): {"suites": {"step": step(GPU, 0.5)}}, named(3, "h200_step"): step(GPU, 0.4)}
    )
    assert newest(where, SUITES)["h200"]["step"].link == "2026-01-03-h200-step.json"


def test_runs_of_all_in_folders_are_read(folder):
    where = folder(**{named(1, "h200_all"): {"suites": {"step": step(GPU, 0.9), "soak": SOAK | {"machine": GPU}}}})
    for number, seconds, wrong in (("", 0.5, []), ("-2", 0.4, []), ("-3", 0.1, ["conv_relu"])):
        of_gate = {"failed_gate": wrong, "unfinished_gate": ["batch_norm"]}
        path = where / f"2026-01-01-h200-all{number}"
        path.mkdir()
        (path / "all.json").write_text(json.dumps({"suites": {"step": step(GPU, seconds) | of_gate}}))
        (path / "step.json").write_text("{}")
    found = newest(where, SUITES)["h200"]
    assert {name: record.link for name, record in found.items()} == {
        "step": "2026-01-01-h200-all-2/all.json",  # ops of the third are wrong
        "soak": "2026-01-01-h200-all.json",
    }
    assert "[2026-01-01](2026-01-01-h200-all-2/all.json)" in speed_table.page(where)


def test_records_without_rows_are_passed_over(folder):
    where = folder(
        **{named(1, "cpu_step"): step(CPU, 1.5), named(2, "cpu_step"): {"machine": CPU, "rows": []}},
        **{named(3, "cpu_step"): {"machine": CPU, "times_s": {}}},
    )
    assert newest(where, SUITES)["cpu"]["step"].date == "2026-01-01"


def test_an_unfinished_record_gives_way_to_a_finished_one(folder):
    stopped = step(CPU, 0.1) | {"notes": [UNFINISHED]}
    where = folder(
        **{named(1, "cpu_step"): step(CPU, 1.5), named(2, "cpu_step"): stopped, named(1, "h200_step"): stopped}
    )
    found = newest(where, SUITES)
    assert found["cpu"]["step"].date == "2026-01-01" and found["h200"]["step"].date == "2026-01-01"


def test_the_last_record_of_a_day_counts(folder):
    where = folder(**{named(1, f"cpu_step{n}"): step(CPU, 1.0) for n in ("", "-2", "-10")})
    assert newest(where, SUITES)["cpu"]["step"].link == "2026-01-01-cpu-step-10.json"


def test_records_of_tiny_runs_are_passed_over(folder):
    tiny = step(CPU, 0.1) | {"tiny": True}
    where = folder(
        **{named(1, "cpu_step"): step(CPU, 1.5), named(2, "cpu_step"): tiny},
        **{named(3, "cpu_all"): {"suites": {"step": tiny}}},
    )
    assert newest(where, SUITES)["cpu"]["step"].date == "2026-01-01"
