"""The benchmark of the ops: runs, checks before it times, and leaves a record and a picture."""

import itertools
import json
from dataclasses import replace

import pytest
import torch

from bench.kernels import bench_kernels, feature_loss
from bench.kernels.cases import FeatureCase, conv_cases, feature_cases, update_cases
from bench.kernels.comparison import OURS_COMPILED, OURS_IN_ATEN, fastest_of_ours, fastest_peer, rows
from bench.measuring.ceilings import Ceilings
from bench.measuring.clock import quartiles
from bench.measuring.ours import OURS
from bench.measuring.row import Row
from bench.reporting.suite import Report

CEILINGS = Ceilings(copy_gb_per_s=10.0, product_tflop_per_s={"float32": 0.1})


def test_a_run_leaves_a_record_and_a_picture(tmp_path, monkeypatch, capsys):
    small = FeatureCase(2, ((3, 4, 4), (5, 2, 2)))
    monkeypatch.setattr(bench_kernels, "feature_cases", lambda recipes: (small,))
    monkeypatch.setattr(bench_kernels.ceilings, "measure", lambda *_, **__: CEILINGS)
    monkeypatch.setattr(torch, "compile", lambda f, **_: f)
    out = tmp_path / "record.json"
    assert bench_kernels.main(["--op", "feature_loss", "--rounds", "2", "--out", str(out)]) == 0
    record = json.loads(out.read_text())
    assert {row["contender"] for row in record["rows"]} == {"loop", "loop, compiled", OURS, "fastvae, compiled"}
    assert all(len(row["samples_us"]) == 2 and row["median_us"] > 0 for row in record["rows"])
    assert record["notes"] == ["no GPU: Triton's kernels were not timed, and batches are of 8 images"]
    assert out.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    assert "x best peer" in capsys.readouterr().out


def measurement(monkeypatch, **changed):
    monkeypatch.setattr(torch, "compile", lambda f, **_: f)
    (forward, _) = feature_loss.measurements((FeatureCase(2, ((3, 4, 4),)),), torch.float32, "cpu")
    return replace(forward, contenders={"loop": forward.contenders["loop"], OURS: forward.contenders[OURS], **changed})


def test_ours_is_not_timed_when_wrong(monkeypatch):
    report = Report("a trial")
    wrong = measurement(monkeypatch, **{OURS: lambda: torch.tensor(1.0)})
    results = rows(wrong, CEILINGS, rounds=1, device="cpu", report=report)
    assert [row.contender for row in results] == ["loop"] and not report.notes
    (failure,) = report.failures
    assert failure.startswith("WRONG, not timed: feature_loss") and "fastvae: result 0: relative error" in failure


@pytest.mark.parametrize("number", [1, 2, 6], ids=["checked", "warmed up", "timed"])
def test_ours_that_fails_costs_the_others_nothing_and_says_why(monkeypatch, number):
    calls, report = itertools.count(1), Report("a trial")
    mixed = measurement(monkeypatch)
    right = mixed.contenders[OURS]

    def fails():
        if next(calls) == number:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return right()

    results = rows(
        replace(mixed, contenders={**mixed.contenders, OURS: fails}), CEILINGS, rounds=3, device="cpu", report=report
    )
    assert [(row.contender, len(row.samples)) for row in results] == [("loop", 3)] and not report.notes
    assert report.failures == [f"FAILED: {mixed.name}: {OURS}: OutOfMemoryError: CUDA out of memory"]


def test_peers_that_fail_or_are_wrong_are_left_out_and_noted(monkeypatch):
    def fails():
        raise RuntimeError("no such thing here")

    report = Report("a trial")
    mixed = measurement(monkeypatch, broken=fails, wrong=lambda: torch.tensor(1.0))
    results = rows(mixed, CEILINGS, rounds=1, device="cpu", report=report)
    assert [row.contender for row in results] == ["loop", OURS]
    (broken, wrong) = report.notes
    assert "broken: RuntimeError: no such thing here" in broken and "wrong is wrong: result 0" in wrong
    assert not report.failures


def test_the_form_in_aten_is_neither_ours_nor_a_peer():
    names = {OURS: 5.0, OURS_COMPILED: 4.0, OURS_IN_ATEN: 1.0, "loop": 6.0}
    results = [Row(name, "us", [us]) for name, us in names.items()]
    assert fastest_of_ours(results).contender == OURS_COMPILED and fastest_peer(results).contender == "loop"
    assert fastest_of_ours(results[-1:]) is None and fastest_peer(results[:3]) is None


def test_quartiles():
    assert quartiles([1.0, 2.0, 3.0, 4.0, 5.0]) == (2.0, 3.0, 4.0)


def test_the_floor_is_the_larger_share():
    assert CEILINGS.floor_s(int(1e9), 0, torch.float32) == pytest.approx(0.01)
    assert CEILINGS.floor_s(int(1e9), int(1e9), torch.float32) == pytest.approx(0.1)


def test_cases_are_those_of_the_models():
    convolutions = conv_cases(("celeba64",))
    assert [(c.in_channels, c.out_channels, c.size, c.upsample) for c in convolutions[:2]] == [
        (256, 128, 4, 2),
        (128, 128, 8, 1),
    ]
    assert (convolutions[-1].out_channels, convolutions[-1].bias) == (3, True)
    assert [(c.in_channels, c.out_channels, c.size) for c in conv_cases(("celeba128",)) if c.upsample == 2] == [
        (256, 256, 4),
        (256, 128, 8),
        (128, 64, 16),
        (64, 32, 32),
        (32, 3, 64),
    ]
    assert conv_cases(("cifar10",))[0].size == 4 and conv_cases(("cifar10",))[0].in_channels == 128
    (features,) = feature_cases(("celeba64",))
    assert features.shapes[0] == (64, 64, 64) and features.shapes[-1] == (512, 4, 4)
    assert {case.clip for case in update_cases(("celeba64",))} == {0.01, None}
