"""README's section on speed is made of the newest record of each machine."""

import json

import pytest

from bench import speed_table
from bench.paper import projection
from bench.reporting.newest_records import newest

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


ACCELERATE = {
    "machine": CPU,
    "rows": [
        {"contender": name, "batch": batch, "median_ms": ms, "p99_ms": 2 * ms if batch == 1 else None}
        for name, by_batch in {
            "plain eager": {1: 9.0, 64: 300.0},
            "exported file, onnxruntime": {1: 5.0, 64: 240.0},
            "fastvae accelerate": {1: 2.5, 64: 120.0},
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
    found = newest(where)
    assert list(found) == ["h200", "cpu"]  # GPUs first
    assert {suite: f.date for suite, f in found["h200"].items()} == {"step": "2026-01-03", "paper": "2026-01-03"}
    assert found["cpu"]["step"].date == "2026-01-09"


def test_of_one_day_the_suites_own_record_counts(folder):
    where = folder(
        **{named(3, "h200_all"): {"suites": {"step": step(GPU, 0.5)}}, named(3, "h200_step"): step(GPU, 0.4)}
    )
    assert newest(where)["h200"]["step"].path.name == "2026-01-03-h200-step.json"


def test_records_without_rows_are_passed_over(folder):
    where = folder(
        **{named(1, "cpu_step"): step(CPU, 1.5), named(2, "cpu_step"): {"machine": CPU, "rows": []}},
        **{named(3, "cpu_step"): {"machine": CPU, "times_s": {}}},
    )
    assert newest(where)["cpu"]["step"].date == "2026-01-01"


def test_what_it_says_of_a_gpu(folder):
    where = folder(
        **{named(1, "h200_all"): {"suites": {"step": step(GPU, 0.5), "inference": INFERENCE, "loader": LOADER}}},
        **{named(1, "h200_paper"): PAPER},
    )
    text = speed_table.section(where)
    assert "not been measured on a GPU" not in text and "Nothing has been measured" not in text
    assert "batches of 64** — NVIDIA H200, torch 2.13.0+cu130, [2026-01-01](2026-01-01-h200-all.json)" in text
    assert "| plain eager fp32 | 32 | 1.00 (0.80 to 1.11) |" in text
    assert "| **fastvae bf16** | 128 | 4.00 (3.20 to 4.44) |" in text
    assert "| **fastvae captured bf16** | 0.123 (0.247) |" in text
    assert "encode 4.00 to 4.00" in text and "decode" not in text
    assert "| **fastvae: packed** | 12,346 (12,000 to 13,000) |" in text
    assert "- train <= 10 h: PASS, 0.02 h" in text


def test_what_it_says_without_a_gpu(folder):
    text = speed_table.section(folder(**{named(1, "cpu_kernels"): KERNELS}))
    assert "Nothing has been measured on a GPU yet" in text
    assert "unless the table names something else" in " ".join(text.split())
    assert "one pass of the critic more" in " ".join(text.split())
    assert "CPU (AVX512, 2 threads)" in text
    assert "| `replicate_conv2d` with upsampling, forward | 1.25 (0.50 to 2.00) | 2 |" in text
    assert "| `replicate_conv2d`, forward | 1.25 | 1 |" in text


def test_a_projection_from_a_cpu_settles_nothing(folder):
    verdicts = [
        projection.train(12.0, (11.0, 13.0), "measured on a CPU"),
        projection.train(1.5, (1.0, 2.0), "projected"),
    ]
    paper = {"machine": CPU, "rows": [{}], "verdicts": [v.as_json() for v in verdicts]}
    text = speed_table.section(folder(**{named(1, "cpu_paper"): paper}))
    assert "- train <= 10 h: FAIL, 12 h (11 to 13), margin 0.833 x, measured on a CPU\n" in text
    assert "- train <= 10 h: not settled: 1.5 h (1 to 2), projected\n" in text and "PASS" not in text
    gpu = speed_table.section(folder(**{named(2, "h200_paper"): paper | {"machine": GPU}}))
    assert "- train <= 10 h: PASS, 1.5 h (1 to 2), margin 6.67 x, projected" in gpu


@pytest.mark.parametrize("ours", [900.0, 1100.0])
def test_a_fallback_that_is_slower_is_explained(folder, ours):
    rates = {"torch DataLoader + Pillow": 1000.0, "fastvae: Pillow": ours}
    rows = [{"contender": n, "images_per_s": r, "quartiles_images_per_s": [r, r]} for n, r in rates.items()]
    text = speed_table.section(folder(**{named(1, "cpu_loader"): {"machine": CPU, "rows": rows}}))
    assert ("it is the fallback" in text) == (ours < 1000)


def test_it_replaces_what_is_between_the_marks():
    readme = f"before\n{speed_table.OPEN}\nold\n{speed_table.CLOSE}\nafter\n"
    new = speed_table.replaced(readme, "new")
    assert new == f"before\n{speed_table.OPEN}\nnew\n{speed_table.CLOSE}\nafter\n"
    assert speed_table.replaced(new, "new") == new
    with pytest.raises(ValueError, match="once each"):
        speed_table.replaced("no marks", "new")


def test_check_finds_what_is_out_of_date(tmp_path, monkeypatch, capsys):
    (tmp_path / "README.md").write_text(f"{speed_table.OPEN}\nold\n{speed_table.CLOSE}\n")
    monkeypatch.setattr(speed_table, "ROOT", tmp_path)
    assert speed_table.main(["--check"]) == 1
    assert "old" in (tmp_path / "README.md").read_text()
    assert speed_table.main([]) == 0 and speed_table.main(["--check"]) == 0
    assert "says what the records say" in capsys.readouterr().out


def test_what_it_says_of_accelerate(folder):
    text = speed_table.section(folder(**{named(1, "cpu_accelerate"): ACCELERATE}))
    assert "| **fastvae accelerate** | 2.5 (5) | 2.00 | 120 | 2.00 |" in text
    # The folded forms are fastvae's own: no peers, even where one is faster.
    assert "| folded eager | 1 (2) | 5.00 |  |  |" in text
    assert "- reconstruct 1 image, ms <= 2: FAIL, 2.5" in text
