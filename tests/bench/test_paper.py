"""The paper's claims: arithmetic of floors, extrapolation and projection, and a run of the benchmark scaled down."""

import json
import os
import signal
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from fastvae.kernels import replicate_conv2d

pytest.importorskip("matplotlib")

from bench.anatomy import flops
from bench.anatomy.parts import apart, passes
from bench.anatomy.real_steps import RealSteps
from bench.anatomy.table import costs
from bench.measuring import ceilings
from bench.measuring.ceilings import Ceilings
from bench.paper import bench_paper, measure, one_image, projection
from bench.reporting.suite import Report
from bench.step.plain_step import with_stock_modules
from fastvae import VAE
from fastvae import native_library as library
from fastvae.recipes import RECIPES
from fastvae.train.build import build

BATCH = 64
CEILINGS = Ceilings(copy_gb_per_s=968.0, product_tflop_per_s={"float32": 22.68, "bfloat16": 100.0})


def test_flops_and_bytes_of_a_small_net():
    with FakeTensorMode():
        net = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(512, 10)
        )
        images = torch.empty(2, 3, 8, 8)
        forward = flops.count(lambda: net(images), torch.bfloat16)
        both = flops.count(lambda: net(images).sum().backward(), torch.float32)
    conv, linear = 2 * 9 * 3 * 8 * 64 * 2, 2 * 512 * 10 * 2
    x, w, y, f, v, z = 2 * 3 * 64, 8 * 3 * 9, 2 * 8 * 64, 2 * 512, 5120, 20
    assert forward.flops == conv + linear
    # The linear layer's bias is read, too; BN and ReLU move nothing of their own.
    assert forward.bytes == 2 * (x + w + y + f + v + 10 + z)
    # The images want no gradient, so the convolution has one backward product and the linear layer two.
    assert both.flops == conv + linear + conv + 2 * linear
    backward = (y + x + w) + (z + v + f) + (z + f + v)
    assert both.bytes == 4 * (x + w + y + f + v + 10 + z + backward)


@pytest.mark.parametrize(("upsample", "taps"), [(1, 9), (2, 4)])
def test_our_convolution_is_counted_by_its_identity(upsample, taps):
    with FakeTensorMode():
        x, weight = torch.empty(2, 5, 4, 4, requires_grad=True), torch.empty(7, 5, 3, 3, requires_grad=True)
        counted = flops.count(lambda: replicate_conv2d(x, weight, upsample=upsample).sum().backward(), torch.float32)
    outputs = 2 * 7 * 16 * upsample**2
    assert counted.flops == 3 * 2 * taps * 5 * outputs
    # x and weight and y; then y's gradient, weight and x in, two gradients out.
    assert counted.bytes == 4 * (x.numel() + weight.numel() + outputs + outputs + 2 * (x.numel() + weight.numel()))


def test_the_paper_size_step():
    """Counts of the celeba64 step, in GFLOP an image; by hand from the layers' shapes, section by section."""
    config = RECIPES["celeba64"]()
    least = costs(config, torch.bfloat16)
    gflop = {part: cost.flops / BATCH / 1e9 for part, cost in least.items()}
    vgg = 0
    side, inputs = 64, 3
    for widths in ((64, 64), (128, 128), (256,) * 4, (512,) * 4, (512,)):
        for outputs in widths:
            vgg += 2 * 9 * inputs * outputs * side**2 / 1e9
            inputs = outputs
        side //= 2
    for part in ("loss network, real", "loss network, generated", "loss network, backward"):
        assert gflop[part] == pytest.approx(vgg)
    assert vgg == pytest.approx(2.96, abs=0.01)
    # A step computes nothing beside its parts.
    with FakeTensorMode():
        objective = flops.shapes_of(config)
        images, noise = torch.empty(BATCH, 3, 64, 64), torch.empty(BATCH, 100)
        step = flops.count(lambda: objective.loss(images, noise)[0].backward(), torch.bfloat16)
    parts = sum(cost.flops for part, cost in least.items() if part != "input" and not part.startswith("optimiser"))
    assert step.flops == parts


def test_the_identity_spares_a_sixth_of_a_reconstruction():
    config = RECIPES["celeba64"]()
    with FakeTensorMode(), torch.no_grad():
        objective = flops.shapes_of(config)
        image = torch.empty(1, 3, 64, 64)
        ours = flops.count(lambda: objective.reconstruct(image), torch.float32).flops
        with_stock_modules(objective.networks["decoder"])
        plain = flops.count(lambda: objective.reconstruct(image), torch.float32).flops
    assert plain == pytest.approx(0.44e9, rel=0.02)
    upsampled = 2 * 9 * (256 * 128 * 8**2 + 128 * 64 * 16**2 + 64 * 32 * 32**2 + 32 * 3 * 64**2)
    assert plain - ours == pytest.approx(upsampled * 20 / 36)


def test_a_bf16_part_has_the_steps_gradients(tmp_path):
    """Rounded weights, autocast and all: the same gradients as the network's under plain autocast."""
    config = bench_paper.config_of(None, tmp_path, tiny=True)
    step = build(replace(config, train=replace(config.train, precision="bf16"))).step
    torch.manual_seed(1)
    plain = passes(step.objective, config, precision=step.precision)["decoder"]
    torch.manual_seed(1)
    rounded = passes(step.objective, config, precision=step.precision, rounded=True)["decoder"]
    for expected, gradient in zip(plain(), rounded(), strict=True):
        assert gradient.dtype == torch.float32 and torch.equal(expected, gradient)


def test_parts_that_are_differences():
    amounts = {"encoder": 1, "loss network, real": 2, "real and generated": 5, "forward and backward": 9, "critic": 3}
    separated = apart(amounts, lambda more, less: more - less)
    expected = {
        "encoder": 1, "loss network, real": 2, "loss network, generated": 3, "loss network, backward": 4, "critic": 3
    }  # fmt: skip
    assert separated == expected and list(separated) == list(expected)


def test_extrapolation():
    # 15,825 steps of 64 images: by hand 1,012,800 images.
    assert projection.run_hours(3600 / 1_012_800) == pytest.approx(1.0)
    assert projection.run_hours(0.0, 3600 / 202_560) == pytest.approx(1.0)


def test_projection_takes_the_worse_ratio():
    factor, worse = projection.slowdown(CEILINGS)
    assert factor == pytest.approx(2.0) and "products" in worse
    slower_products = Ceilings(copy_gb_per_s=4840.0, product_tflop_per_s={"float32": 1.134})
    factor, worse = projection.slowdown(slower_products)
    assert factor == pytest.approx(10.0) and "copies" in worse


def test_launches_do_not_grow():
    assert projection.latency(1.0, 8.0) == 8.0
    assert projection.latency(1.0, 8.0, on_device_s=0.25) == 0.75 + 2.0
    assert projection.latency(0.2, 8.0, on_device_s=0.25) == pytest.approx(1.6)


def test_verdicts():
    passed = projection.train(2.0, (1.5, 2.5), "here")
    assert passed.passes and passed.margin == 5.0
    assert str(passed) == "train <= 10 h: PASS, 2 h (1.5 to 2.5), margin 5 x, here"
    failed = projection.inference(0.024, (0.02, 0.03), "here")
    assert not failed.passes and str(failed).startswith("inference <= 0.012 s: FAIL, 0.024 s")
    assert projection.memory(10.9e9, "").passes and not projection.memory(11.1e9, "").passes


class Process:
    """In place of one that runs the engine, in 4 ms."""

    error = 1e-6

    def __init__(self, name, batch, width, threads, *, fresh_caches):
        assert (name, batch, width, fresh_caches) == ("fastvae accelerate", 1, 2, False)
        assert threads == torch.get_num_threads()

    def prepare(self):
        return {"error": self.error}

    def turn(self, calls, untimed):
        return [0.004] * calls

    def end(self):
        pass


@pytest.fixture
def quick(monkeypatch):
    """Without the seconds that ceilings take, and, on a CPU, those of the engine's compiler and its process."""
    monkeypatch.setattr(measure.ceilings, "measure", lambda *_, **__: CEILINGS)
    if not torch.cuda.is_available():
        native = SimpleNamespace(backend="native", dtype=torch.float32)
        monkeypatch.setattr(VAE, "accelerate", lambda vae: native)
        monkeypatch.setattr(one_image, "Contender", Process)
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.skipif(torch.cuda.is_available(), reason="what a GPU measures is tested below")
def test_a_run_leaves_verdicts_a_record_and_a_picture(quick, tmp_path, capsys):
    out = tmp_path / "paper.json"
    assert bench_paper.main(["--tiny", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    record = json.loads(out.read_text())
    projected = ["projected to a GTX 1080 Ti" in v["where"] for v in record["verdicts"]]
    assert projected == [False, False, True, True]
    assert [v["claim"] for v in record["verdicts"]] == ["train <= 10 h", "inference <= 0.012 s"] * 2
    assert all(v["line"] in printed and v["passes"] == (v["margin"] >= 1) for v in record["verdicts"])
    here, aten = (r for r in record["rows"] if r["work"] == "training")
    assert here["contender"] == "fp32" and aten["contender"] == "fp32 on ATen" and len(here["samples_us"]) == 2
    # What a user would call is judged; the plain module's row has no verdict.
    of_one = {r["contender"]: r for r in record["rows"] if r["work"] == "reconstruction of one image"}
    assert list(of_one) == ["native fp32", one_image.PLAIN, "fp32 on ATen"]
    here, there = (v for v in record["verdicts"] if v["name"] == "inference")
    assert here["value"] == pytest.approx(0.004) and here["where"].endswith("VAE.accelerate() in native fp32")
    assert "native fp32" in printed and here["passes"]
    assert there["where"].endswith("in fp32 on ATen, the plain module")
    assert there["value"] == pytest.approx(of_one["fp32 on ATen"]["median_us"] / 1e6 * 2.0)
    # The projection is the measured time, times the worse ratio.
    train = record["verdicts"][2]
    assert train["value"] == pytest.approx(projection.run_hours(aten["median_us"] / 1e6) * 2.0)
    assert record["step"]["of_product"].keys() == {"float32", "bfloat16"} and record["process_peak_bytes"] > 0
    assert [part["part"] for part in record["parts"]][-3:] == ["loader wait", "gaps and the rest", "whole step"]
    assert any("no GPU" in note for note in record["notes"])
    assert any("hours of training include loading" in note and "noise.fvae" in note for note in record["notes"])
    assert out.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU captures")
def test_what_accelerate_falls_back_to_is_judged_under_its_name(monkeypatch, tmp_path):
    monkeypatch.setattr(library, "host_compiler", lambda: None)
    library._loaded.cache_clear()
    try:
        report = Report("a trial")
        one_image.as_it_runs_here(bench_paper.config_of(None, tmp_path, tiny=True), 3, report)
    finally:
        library._loaded.cache_clear()
    assert [(row.contender, len(row.samples)) for row in report.rows] == [("eager fp32", 3), (one_image.PLAIN, 3)]
    assert report.verdicts[0].where.endswith("VAE.accelerate() in eager fp32")


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU captures")
def test_a_wrong_reconstruction_is_not_judged(quick, monkeypatch, tmp_path):
    monkeypatch.setattr(Process, "error", float("nan"))
    report = Report("a trial")
    with pytest.raises(AssertionError, match="fastvae accelerate: relative error nan, bound 1e-05"):
        one_image.as_it_runs_here(bench_paper.config_of(None, tmp_path, tiny=True), 3, report)
    assert report.rows == report.verdicts == []


def test_it_says_that_no_jpeg_is_decoded():
    assert "no JPEG is decoded" in measure.what_loading_is("faces")
    assert "no JPEG" not in measure.what_loading_is("photos")


def test_tf32_is_called_by_its_name():
    tensor_cores = replace(CEILINGS, float32_is_tf32=True)
    assert (tensor_cores.name("float32"), tensor_cores.name("bfloat16")) == ("TF32", "bfloat16")
    assert CEILINGS.name("float32") == "float32"
    measured = ceilings.measure("cpu", [torch.float32], rounds=1)
    assert not measured.float32_is_tf32 and measured.as_json()["float32_is_tf32"] is False


def test_a_signal_leaves_what_was_measured(quick, tmp_path, monkeypatch):
    monkeypatch.setattr(one_image, "latencies", lambda *_, **__: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(SystemExit) as stopped:
        bench_paper.main(["--tiny", "--out", str(tmp_path / "paper.json")])
    assert stopped.value.code == 143
    record = json.loads((tmp_path / "paper.json").read_text())
    assert [v["claim"] for v in record["verdicts"] if "memory" not in v["claim"]] == ["train <= 10 h"]


def test_a_stage_that_fails_costs_the_others_nothing(quick, tmp_path, monkeypatch, capsys):
    def fails(*_, **__):
        raise RuntimeError("no such thing here")

    monkeypatch.setattr(measure, "RealSteps", fails)
    out = tmp_path / "paper.json"
    assert bench_paper.main(["--tiny", "--out", str(out)]) == 1
    assert "FAILED, not measured: training as it runs here: RuntimeError: no such thing" in capsys.readouterr().out
    assert [v["claim"] for v in json.loads(out.read_text())["verdicts"]] == ["inference <= 0.012 s"]


def test_a_first_epoch_that_fills_the_device_counts_once(tmp_path):
    config = bench_paper.config_of(None, tmp_path, tiny=True)
    report = Report("a trial")
    with RealSteps(replace(config, train=replace(config.train, resident="on"))) as real:
        assert real.fills_in_first_epoch and real.resident == 24 * 32 * 32 * 3
        windows = measure._train(real, measure.Size(2, 4, 1, 1), "here", report)
        assert real.epoch == 2 and (real.memory is None) != torch.cuda.is_available()
    usual, first = report.rows
    # Six steps an epoch: the windows of two that its end cut short do not count.
    assert [w.steps for w in windows] == [4] and len(usual.samples) == len(first.samples) == 1
    assert first.job["work"] == "training, first epoch"
    slower = max(usual.median, first.median) / 1e6
    assert report.verdicts[0].value == pytest.approx(projection.run_hours(usual.median / 1e6, slower))


def test_the_papers_gpu_has_no_tensor_cores():
    from fastvae.kernels import provider

    before = torch.backends.cudnn.conv.fp32_precision
    with measure.as_the_papers_gpu():
        assert torch.backends.cudnn.conv.fp32_precision == torch.backends.cuda.matmul.fp32_precision == "ieee"
        assert provider("replicate_conv2d", torch.empty(0)) == "aten"
    assert torch.backends.cudnn.conv.fp32_precision == before


@pytest.mark.gpu
def test_memory_and_the_first_epoch_on_a_gpu(quick, tmp_path):
    out = tmp_path / "paper.json"
    bench_paper.main(["--tiny", "--out", str(out)])
    record = json.loads(out.read_text())
    assert not any("FAILED" in note for note in record["notes"])
    assert "training, first epoch" in {row["work"] for row in record["rows"]}
    # The 202,599 images that are not on the device count all the same.
    assert all(peak["with_celeba_bytes"] > 202_599 * 3 * 32**2 for peak in record["memory"].values())
    assert sum(v["claim"] == "memory <= 11 GB" for v in record["verdicts"]) == 2
