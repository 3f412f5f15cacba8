"""The benchmark of accelerate: contenders in processes of their own, of which none is left, and honest verdicts."""

import contextlib
import json
import os
from pathlib import Path

import pytest
import torch

from bench.inference import accelerate_contenders, bench_accelerate, runtimes
from bench.inference.accelerate_contenders import ACCELERATE_BF16, CONTENDERS, dtype_of
from bench.inference.bench_accelerate import main, verdicts
from bench.inference.contenders import smooth_images, trained_vae
from bench.inference.engine_layers import LayerRow
from bench.inference.engine_layers import table as layer_table
from bench.inference.isolated import Contender, all_ended
from bench.measuring.ceilings import Ceilings
from bench.measuring.closeness import relative_error
from bench.measuring.row import Row
from bench.reporting.suite import Report
from fastvae.inference.accelerated import BOUNDS
from fastvae.machine import host_compiler

LAYER = LayerRow("a", us=10.0, mflop=1.0, filter_kb=2.0, map_kb=3.0, flops_us=4.0, bytes_us=5.0)

needs_compiler = pytest.mark.skipif(host_compiler() is None, reason="needs a C++ compiler")


def children() -> list[str]:
    """The contenders' processes that are left; known on Linux only."""
    left = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it has just ended
            parent = int((file.parent / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == os.getpid() and b"bench.inference.isolated" in file.read_bytes():
                left.append(file.parent.name)
    return left


@needs_compiler
def test_a_tiny_run_is_recorded_and_leaves_no_process(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(bench_accelerate, "measure_ceilings", lambda *_, **__: Ceilings(10.0, {"float32": 0.1}))
    out = tmp_path / "accelerate.json"
    names = ["plain eager", "fastvae accelerate"]
    assert main(["--tiny", "--batch", "1", "--contenders", *names, "--out", str(out)]) == 0
    record = json.loads(out.read_text())
    assert [row["contender"] for row in record["rows"]] == names
    assert all(len(row["samples_ms"]) == 4 and row["error"] <= 1e-5 for row in record["rows"])
    assert [v["sense"] for v in record["verdicts"]] == ["<=", ">="]
    layers = record["layers"]["float32"]
    assert layers[0]["name"] == "read the image" and len(layers) == 25
    assert out.with_suffix(".png").exists() and not children()
    assert "best peer (plain eager)" in capsys.readouterr().out


def test_a_contender_that_cannot_run_is_left_out_and_ended(monkeypatch):
    contender = Contender("nobody", 1, 2, 1)
    with all_ended([contender]), pytest.raises(RuntimeError, match="KeyError: 'nobody'"):
        contender.prepare()
    assert not children()


def test_a_contender_that_dies_costs_its_own_calls_alone(monkeypatch):
    dying = "plain compiled", "fastvae accelerate"

    class Fragile:
        def __init__(self, name, *_, **__):
            self.name, self.turns = name, 0

        def prepare(self):
            return {"first_call_s": 0.0, "error": 0.0}

        def turn(self, calls, untimed):
            self.turns += 1
            if self.name in dying and self.turns == 2:
                raise RuntimeError("its process ended with status -9")
            return [0.001] * calls

        def end(self):
            pass

    monkeypatch.setattr(bench_accelerate, "Contender", Fragile)
    report = Report("a trial")
    bench_accelerate.measure(("plain eager", *dying), 1, 2, report, tiny=True)
    rows = report.rows
    assert [(row.contender, len(row.samples)) for row in rows] == [("plain eager", 4), (dying[0], 2), (dying[1], 2)]
    died = "RuntimeError: its process ended with status -9"
    assert report.notes == [f"left out: batch 1, after 2 calls: plain compiled: {died}"]
    assert report.failures == [f"FAILED: batch 1, after 2 calls: fastvae accelerate: {died}"]
    assert rows[0].details["p99_ms"] is None and "4 calls" in bench_accelerate.table(rows)


def test_ours_that_fails_at_one_batch_fails_the_run(tmp_path, monkeypatch):
    class Failing:
        def __init__(self, name, batch, *_, **__):
            self.name, self.batch = name, batch

        def prepare(self):
            if self.batch == 2 and self.name == "fastvae accelerate":
                raise RuntimeError("accelerate fell back to eager")
            return {"first_call_s": 0.0, "error": 0.0}

        def turn(self, calls, untimed):
            return [0.001] * calls

        def end(self):
            pass

    monkeypatch.setattr(bench_accelerate, "Contender", Failing)
    monkeypatch.setattr(bench_accelerate, "measure_ceilings", lambda *_, **__: Ceilings(10.0, {"float32": 0.1}))
    monkeypatch.setattr(bench_accelerate, "measure_layers", lambda *_, **__: [LAYER])
    flags = ["--tiny", "--batch", "1", "2", "--contenders", "plain eager", "fastvae accelerate"]
    assert main([*flags, "--out", str(tmp_path / "accelerate.json")]) == 1
    record = json.loads((tmp_path / "accelerate.json").read_text())
    assert len(record["rows"]) == 3
    assert "FAILED: batch 2: fastvae accelerate: RuntimeError: accelerate fell back to eager" in record["notes"]


def test_a_time_limit_while_a_contender_is_built_leaves_the_calls_of_those_that_are_ready(monkeypatch):
    built, ended = [], []

    class Slow:
        def __init__(self, name, *_, **__):
            self.name = name

        def prepare(self):
            built.append(self.name)
            if self.name == "plain compiled":
                raise SystemExit(143)
            return {"first_call_s": 0.0, "error": 0.0}

        def turn(self, calls, untimed):
            assert "plain compiled" in ended  # or it would go on compiling meanwhile
            return [0.001] * calls

        def end(self):
            ended.append(self.name)

    monkeypatch.setattr(bench_accelerate, "Contender", Slow)
    monkeypatch.setattr(bench_accelerate, "LAST_S", 0.0)
    names = ("plain eager", "plain compiled", "fastvae accelerate", "folded compiled")
    report = Report("a trial")
    with pytest.raises(SystemExit, match="143"):
        bench_accelerate.measure(names, 1, 2, report, tiny=False)
    rows, notes = report.rows, report.notes
    assert built == ["fastvae accelerate", "plain eager", "plain compiled"]
    assert [(row.contender, len(row.samples)) for row in rows] == [("plain eager", 10), ("fastvae accelerate", 10)]
    expected = "left out at batch 1, since the time was over before they were ready: plain compiled, folded compiled"
    assert notes == [expected] and {"plain eager", "fastvae accelerate"} <= set(ended)


def test_each_of_ours_is_built_next_to_its_likely_rivals():
    """A time limit may come while they are built."""
    order = sorted(CONTENDERS, key=bench_accelerate._build_order)
    assert order[:3] == ["fastvae accelerate", "exported file, onnxruntime", "exported file, OpenVINO"]
    assert order[3:5] == ["fastvae accelerate bf16", "exported file, OpenVINO bf16"]
    assert set(order[-4:]) == {name for name in CONTENDERS if "compiled" in name or "AOT" in name}


def test_peers_are_no_engine_of_fastvae():
    assert all(name.startswith(("plain", "exported")) for name in accelerate_contenders.PEERS)
    assert set(accelerate_contenders.PEERS) < set(accelerate_contenders.CONTENDERS)


def row(name: str, median: float, batch: int = 1) -> Row:
    return Row(name, "ms", [share * median for share in (0.8, 0.9, 1.0, 1.1, 1.2)], {"batch": batch})


def test_verdicts_are_held_against_the_best_peer():
    rows = [row("plain eager", 9), row("plain onnxruntime", 5), row("fastvae accelerate", 2.2), row("folded eager", 1)]
    first, second = verdicts([*rows, row("fastvae accelerate", 0.1, batch=64)])
    assert not first.passes and first.value == 2.2
    assert second.passes and second.value == pytest.approx(5 / 2.2) and "plain onnxruntime" in second.name
    assert second.spread == pytest.approx((5 / (1.1 * 2.2), 5 / (0.9 * 2.2)))
    assert verdicts([row("plain eager", 9)]) == []


def test_each_precision_is_judged_among_its_own_kind():
    rows = [
        *(row("plain OpenVINO", 4), row("plain OpenVINO bf16", 2), row("plain eager channels_last bf16", 1.5)),
        *(row("fastvae accelerate", 2), row("fastvae accelerate bf16", 1)),
        *(row("plain OpenVINO", 140, 64), row("plain OpenVINO bf16", 80, 64)),
        *(row("fastvae accelerate", 100, 64), row("fastvae accelerate bf16", 50, 64)),
    ]
    latency, *times = verdicts(rows)
    assert latency.passes and [v.value for v in times] == pytest.approx([2, 1.5, 1.4, 1.6])
    assert [v.target for v in times] == [1.6, 1.3, 1.5, 1.3] and [v.passes for v in times] == [True, True, False, True]
    assert times[1].name == "1 image in bfloat16: times as fast as the best peer (plain eager channels_last bf16)"
    assert times[2].name == "64 images in float32: times as fast as the best peer (plain OpenVINO)"


def test_without_instructions_for_bfloat16_what_computes_in_it_is_left_out(tmp_path, monkeypatch, processor):
    class Quick:
        def __init__(self, name, *_, **__):
            self.name = name

        def prepare(self):
            # What bfloat16 may be off by would be wrong in float32.
            return {"first_call_s": 0.0, "error": 1e-3 if dtype_of(self.name) == torch.bfloat16 else 1e-7}

        def turn(self, calls, untimed):
            return [0.001] * calls

        def end(self):
            pass

    dtypes = []
    monkeypatch.setattr(bench_accelerate, "Contender", Quick)
    monkeypatch.setattr(bench_accelerate, "measure_ceilings", lambda *_, **__: Ceilings(10.0, {}))
    monkeypatch.setattr(bench_accelerate, "measure_layers", lambda _, dtype, **__: dtypes.append(dtype) or [LAYER])
    names = ["plain eager", "plain OpenVINO bf16", "fastvae accelerate", ACCELERATE_BF16]
    for instructions in (["avx512_bf16"], []):
        processor(*instructions)
        out = tmp_path / f"{len(instructions)}.json"
        assert main(["--tiny", "--batch", "1", "--contenders", *names, "--out", str(out)]) == 0
        record = json.loads(out.read_text())
        timed = [row["contender"] for row in record["rows"]]
        assert timed == (names if instructions else [name for name in names if "bf16" not in name])
        assert [note.partition(":")[0] for note in record["notes"]] == (
            [] if instructions else ["left out what computes in bfloat16"]
        )
        assert set(record["layers"]) == ({"float32", "bfloat16"} if instructions else {"float32"})
    assert dtypes == [torch.float32, torch.bfloat16, torch.float32]


@pytest.mark.parametrize("name", ["plain OpenVINO", "exported file, OpenVINO", "exported file, onnxruntime"])
def test_a_runtime_reconstructs(name):
    pytest.importorskip("openvino")
    pytest.importorskip("onnxruntime")
    vae, x = trained_vae(2), smooth_images(2)
    with torch.no_grad():
        exact = trained_vae(2).double().reconstruct(x.double())
    call = CONTENDERS[name](vae, x, torch.float32)
    assert relative_error(call(), exact) <= BOUNDS[torch.float32]
    assert relative_error(call(), exact) <= BOUNDS[torch.float32]  # the request is used again


def test_openvino_computes_in_bfloat16_or_says_that_it_does_not():
    """Which of both depends on the processor."""
    pytest.importorskip("openvino")
    model, x = torch.nn.Sequential(torch.nn.Conv2d(3, 16, 3), torch.nn.Conv2d(16, 3, 3)).eval(), smooth_images(1)
    with torch.no_grad():
        exact = model.double()(x.double())
    try:
        call = runtimes.openvino(model.float(), x, torch.bfloat16)
    except RuntimeError as error:
        assert "OpenVINO computes in" in str(error)
        return
    assert BOUNDS[torch.float32] < relative_error(call(), exact) <= BOUNDS[torch.bfloat16]


def test_layers_are_held_to_the_larger_floor():
    assert LAYER.floor_us == 5.0
    assert "50 %" in layer_table([LAYER])


@pytest.mark.parametrize("flags", [["--batch", "0"], ["--width", "0"], ["--contenders", "nobody"]])
def test_bad_flags(flags):
    with pytest.raises(SystemExit) as ended:
        main(flags)
    assert ended.value.code == 2


def test_a_wrong_result_fails_the_run_and_costs_the_others_nothing(monkeypatch):
    class Wrong:
        def __init__(self, name, *_, **__):
            self.name = name

        def prepare(self):
            return {"first_call_s": 0.0, "error": float("nan") if self.name != "plain compiled" else 1e-7}

        def turn(self, calls, untimed):
            return [0.001] * calls

        def end(self):
            pass

    monkeypatch.setattr(bench_accelerate, "Contender", Wrong)
    report = Report("a trial")
    bench_accelerate.measure(("plain eager", "plain compiled", "fastvae accelerate"), 1, 2, report, tiny=True)
    assert [row.contender for row in report.rows] == ["plain compiled"]
    assert report.notes == ["left out: plain eager at batch 1: relative error nan, bound 1e-05"]
    assert report.failures == ["WRONG, not timed: fastvae accelerate at batch 1: relative error nan, bound 1e-05"]
