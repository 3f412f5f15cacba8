"""The pages about speed are made of the newest record of each machine, and the committed ones are up to date."""

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench import speed_chart, speed_table, tables
from bench.__main__ import main as bench_main
from bench.all import plan
from bench.inference.accelerate_contenders import BF16, CONTENDERS, PEERS
from bench.paper import projection
from bench.reporting.marked_text import replaced
from bench.reporting.newest_records import UNFINISHED, newest
from bench.reporting.record import RECORDS
from bench.suites import SUITES, Suite
from bench.tables import ACCELERATES_BF16, ACCELERATES_PEERS, Headline

CPU = {"gpu": None, "cpu": "AVX512", "threads": 2, "torch": "2.13.0+cpu"}
GPU = {"gpu": "NVIDIA H200", "cpu": "AVX512", "threads": 16, "torch": "2.13.0+cu130"}


def step(machine: dict, ours_s: float) -> dict:
    rows = [
        {"contender": name, "median_s": s, "quartiles_s": [0.9 * s, 1.25 * s], "images_per_s": 64 / s}
        for name, s in (("plain eager fp32", 2.0), ("fastvae bf16", ours_s))
    ]
    return {"machine": machine, "settings": {"width": 32, "batch": 64}, "rows": rows}


def latency(contender: str, verb: str, batch: int, median_ms: float) -> dict:
    return {
        "contender": contender,
        "verb": verb,
        "batch": batch,
        "host_copies": False,
        "median_ms": median_ms,
        "p99_ms": 2 * median_ms,
    }


INFERENCE = {
    "machine": GPU,
    "rows": [
        latency("plain eager fp32", "reconstruct", 1, 1.0),
        latency("fastvae captured bf16", "reconstruct", 1, 0.1234),
        latency("plain eager fp32", "encode", 1, 1.0),
        latency("fastvae captured bf16", "encode", 1, 0.25),
    ],
}
ONLY_OURS = step(GPU, 0.5) | {"rows": step(GPU, 0.5)["rows"][1:]}
LOADER = {
    "machine": GPU,
    "rows": [{"contender": "fastvae: packed", "images_per_s": 12345.6, "quartiles_images_per_s": [12000.0, 13000.0]}],
}
PAPER = {"machine": GPU, "rows": [{}], "verdicts": [{"line": "train <= 10 h: PASS, 0.02 h"}]}
KERNELS = {
    "machine": CPU,
    "rows": [
        {"op": "replicate_conv2d", "case": case, "work": "forward", "dtype": "float32", "contender": c, "median_us": us}
        for case, ours in (("8x8 up2 b8", 50.0), ("9x9 up2 b8", 200.0), ("8x8 b8", 80.0))
        for c, us in (("padded", 120.0), ("padded, compiled", 100.0), ("fastvae", ours), ("fastvae, compiled", 999.0))
    ],
}

LOADERS = {
    "machine": CPU,
    "rows": [
        {"contender": name, "images_per_s": rate, "quartiles_images_per_s": [rate - 100, rate + 100]}
        for name, rate in {
            "torch DataLoader + Pillow": 1000.0,
            "fastvae: Pillow": 900.0,
            "fastvae: DALI on the CPU": 1500.0,
            "fastvae: packed": 99999.0,
            "fastvae: resident": 99999.0,
        }.items()
    ],
}
LOSSNET = {
    "machine": CPU,
    "rows": [
        {
            "case": "8 pairs of 64x64",
            "work": "features, loss and gradient",
            "dtype": "float32",
            "contender": name,
            "median_us": us,
            "quartiles_us": [us - 500, us + 500],
        }
        for name, us in {"two calls": 4000.0, "two calls, compiled": 3000.0, "fastvae": 2000.0}.items()
    ],
}
SOAK = {
    "machine": CPU,
    "settings": {"width": 32},
    "rows": [{"calls": 10}],
    "verdicts": [{"line": "memory grown over 10 calls <= 4 MiB: PASS, 0 MiB"}],
}
ACCELERATE = {
    "machine": CPU,
    "rows": [
        {
            "contender": name,
            "batch": batch,
            "median_ms": ms,
            "quartiles_ms": [0.8 * ms, 1.2 * ms],
            "p99_ms": 2 * ms if batch == 1 else None,
        }
        for name, by_batch in {
            "plain eager": {1: 9.0, 64: 300.0},
            "exported file, onnxruntime": {1: 5.0, 64: 240.0},
            "fastvae accelerate": {1: 2.5, 64: 120.0},
            "exported file, OpenVINO bf16": {1: 2.0},
            "fastvae accelerate bf16": {1: 1.6, 64: 60.0},
            "folded eager": {1: 1.0},
        }.items()
        for batch, ms in by_batch.items()
    ],
    "verdicts": [{"line": "reconstruct 1 image, ms <= 2: FAIL, 2.5"}],
}


@pytest.fixture
def folder(tmp_path):
    def with_records(**records: dict):
        for name, record in records.items():
            (tmp_path / f"{name.replace('_', '-')}.json").write_text(json.dumps(record))
        return tmp_path

    return with_records


def named(day: int, rest: str) -> str:
    return f"2026_01_{day:02}_{rest}"


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


def test_one_suite_on_a_gpu_is_enough_not_to_say_that_there_is_none(folder):
    where = folder(
        **{named(1, "cpu_step"): step(CPU, 1.0), named(1, "cpu_loader"): LOADER, named(1, "h200_step"): step(GPU, 0.5)}
    )
    assert speed_table.NO_GPU not in speed_table.summary(where)


def test_records_of_tiny_runs_are_passed_over(folder):
    tiny = step(CPU, 0.1) | {"tiny": True}
    where = folder(
        **{named(1, "cpu_step"): step(CPU, 1.5), named(2, "cpu_step"): tiny},
        **{named(3, "cpu_all"): {"suites": {"step": tiny}}},
    )
    assert newest(where, SUITES)["cpu"]["step"].date == "2026-01-01"


def test_records_without_the_base_or_verdicts_make_pages(folder):
    """As a run leaves them whose plain step failed, and one that was stopped before a verdict."""
    where = folder(
        **{named(1, "h200_step"): ONLY_OURS, named(1, "h200_paper"): {"machine": GPU, "rows": [{}]}},
        **{named(1, "cpu_paper"): {"machine": CPU, "rows": [{}]}},
    )
    assert "| **fastvae bf16** | 128 |  |" in speed_table.page(where)


def test_what_it_says_of_a_gpu(folder):
    where = folder(
        **{named(1, "h200_all"): {"suites": {"step": step(GPU, 0.5), "inference": INFERENCE, "loader": LOADER}}},
        **{named(1, "h200_paper"): PAPER},
    )
    text = speed_table.page(where)
    assert "not been measured on a GPU" not in text and "Nothing has been measured" not in text
    assert "batches of 64** — NVIDIA H200, torch 2.13.0+cu130, [2026-01-01](2026-01-01-h200-all.json)" in text
    assert "| plain eager fp32 | 32 | 1.00 (0.80 to 1.11) |" in text
    assert "| **fastvae bf16** | 128 | 4.00 (3.20 to 4.44) |" in text
    assert "| **fastvae captured bf16** | 0.123 (0.247) |" in text
    assert "encode 4.00 to 4.00" in text and "decode" not in text
    assert "| **fastvae: packed** | 12,346 (12,000 to 13,000) |" in text
    assert "- train <= 10 h: PASS, 0.02 h" in text


def test_what_it_says_without_a_gpu(folder):
    text = speed_table.page(folder(**{named(1, "cpu_kernels"): KERNELS}))
    assert "Nothing has been measured on a GPU yet" in text
    assert "unless the table names something else" in " ".join(text.split())
    assert "one pass of the critic more" in " ".join(text.split())
    assert "CPU (AVX512, 2 threads)" in text
    assert "| `replicate_conv2d` with upsampling, forward | 1.25 (0.50 to 2.00) | 2 |" in text
    assert "| `replicate_conv2d`, forward | 1.25 | 1 |" in text


def test_a_slower_tail_is_said():
    rows = [
        {"contender": "fastvae accelerate", "batch": 1, "median_ms": 1.0, "p99_ms": 5.0},
        {"contender": "plain eager", "batch": 1, "median_ms": 2.0, "p99_ms": 4.0},
        {"contender": "plain eager bf16", "batch": 1, "median_ms": 2.0, "p99_ms": 3.0},  # another precision
        {"contender": "folded eager", "batch": 1, "median_ms": 2.0, "p99_ms": 3.0},  # no peer
        {"contender": "fastvae accelerate", "batch": 64, "median_ms": 1.0, "p99_ms": None},
    ]
    said = tables._slower_tails(rows)
    assert (
        said
        == " By the 99th percentile `fastvae accelerate` is behind with batches of 1: 5 ms beside 4 of plain eager."
    )
    rows[1]["p99_ms"] = 6.0
    assert tables._slower_tails(rows) == ""


def test_a_projection_from_a_cpu_settles_nothing(folder):
    verdicts = [
        projection.train(12.0, (11.0, 13.0), "measured on a CPU"),
        projection.train(1.5, (1.0, 2.0), "projected"),
    ]
    paper = {"machine": CPU, "rows": [{}], "verdicts": [v.as_json() for v in verdicts]}
    text = speed_table.page(folder(**{named(1, "cpu_paper"): paper}))
    assert "- train <= 10 h: FAIL, 12 h (11 to 13), margin 0.833 x, measured on a CPU\n" in text
    assert "- train <= 10 h: not settled: 1.5 h (1 to 2), projected\n" in text and "PASS" not in text
    gpu = speed_table.page(folder(**{named(2, "h200_paper"): paper | {"machine": GPU}}))
    assert "- train <= 10 h: PASS, 1.5 h (1 to 2), margin 6.67 x, projected" in gpu


@pytest.mark.parametrize("ours", [900.0, 1100.0])
def test_a_fallback_that_is_slower_is_explained(folder, ours):
    rates = {"torch DataLoader + Pillow": 1000.0, "fastvae: Pillow": ours}
    rows = [{"contender": n, "images_per_s": r, "quartiles_images_per_s": [r, r]} for n, r in rates.items()]
    text = speed_table.page(folder(**{named(1, "cpu_loader"): {"machine": CPU, "rows": rows}}))
    assert ("it is the fallback" in text) == (ours < 1000)


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


def test_headlines_by_hand(folder):
    where = folder(
        **{
            named(1, "cpu_accelerate"): ACCELERATE,
            named(1, "cpu_inference"): INFERENCE | {"machine": CPU},
            named(1, "cpu_loader"): LOADERS,
            named(1, "cpu_kernels"): KERNELS,
            named(1, "cpu_lossnet"): LOSSNET,
        }
    )
    of_suites = {
        Path(record.link).stem.rpartition("-")[2]: headline for record, headline in speed_table.headlined(where)
    }
    assert of_suites["accelerate"][2:] == (2.0, pytest.approx(5 / 3), 2.5, "exported file, onnxruntime")
    # Of two jobs, 1 / 0.1234 and 1 / 0.25.
    assert of_suites["inference"][2:5] == pytest.approx(((1 / 0.1234 + 4) / 2, 4.0, 1 / 0.1234))
    # Packed images are not decoded, so that they are no match for the peer.
    assert of_suites["loader"][1:] == ("1,500 images/s", 1.5, 1.4, 1.6, "torch DataLoader + Pillow")
    assert of_suites["kernels"][2:5] == pytest.approx((1.25, 0.5, 2.0))
    assert of_suites["lossnet"][1:5] == ("2 ms", 1.5, 1.2, 2.0)


def test_suites_without_our_rows_or_peers_have_no_headline(folder):
    alone = {"machine": CPU, "settings": {"width": 32}, "rows": step(CPU, 1.0)["rows"][:1]}
    loaders = LOADERS | {"rows": LOADERS["rows"][:1]}
    assert speed_table.headlined(folder(**{named(1, "cpu_step"): alone, named(1, "cpu_loader"): loaders})) == []


def test_what_it_says_of_the_loss_network_and_of_the_soak(folder):
    text = speed_table.page(folder(**{named(1, "cpu_lossnet"): LOSSNET, named(1, "cpu_soak"): SOAK}))
    assert "|  | features, loss and gradient |\n" in text and "| **fastvae** | 2 (1.5 to 2.5) |" in text
    assert "- memory grown over 10 calls <= 4 MiB: PASS, 0 MiB" in text
    stopped = speed_table.page(folder(**{named(2, "cpu_soak"): SOAK | {"verdicts": []}}))
    assert "Stopped too early for a verdict." in stopped


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


def test_accelerates_peers_are_told_by_their_names():
    assert tuple(name for name in CONTENDERS if name.startswith(ACCELERATES_PEERS)) == PEERS
    assert ACCELERATES_BF16 == BF16


def test_what_it_says_of_accelerate(folder):
    text = speed_table.page(folder(**{named(1, "cpu_accelerate"): ACCELERATE}))
    assert "| **fastvae accelerate** | 2.5 (5) | 2.00 | 120 | 2.00 |" in text
    # In bfloat16 the best peer is another one, and for 64 images there is none.
    assert "| **fastvae accelerate bf16** | 1.6 (3.2) | 1.25 | 60 |  |" in text
    # The folded forms are fastvae's own: no peers, even where one is faster.
    assert "| folded eager | 1 (2) | 5.00 |  |  |" in text
    assert "- reconstruct 1 image, ms <= 2: FAIL, 2.5" in text


def test_lines_from_different_processors_say_so(folder):
    newer = {**ACCELERATE, "machine": {**CPU, "cpu": "AVX2"}}
    where = folder(**{named(1, "cpu_step"): step(CPU, 1.5), named(2, "cpu_accelerate"): newer})
    text = " ".join(speed_table.summary(where).split())
    assert "On CPU (AVX512, 2 threads) and CPU (AVX2, 2 threads), torch 2.13.0+cpu;" in text
    assert text.count("), AVX512.") == text.count("), AVX2.") == 1
