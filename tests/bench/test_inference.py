"""The benchmark of inference: what it times is right, and it leaves a record and a picture."""

import json

import pytest
import torch

from bench.inference import bench_inference
from bench.inference import contenders as inference_contenders
from bench.inference.contenders import BASE, VERBS, Form, Job, caller, inputs_of, model_of, plain_vae, trained_vae
from fastvae.errors import FastvaeError


@pytest.fixture(autouse=True)
def _processor(processor):
    processor()


@pytest.fixture(scope="module")
def vae():
    return trained_vae(2)


def run(tmp_path, *flags) -> tuple[int, dict]:
    out = tmp_path / "inference.json"
    status = bench_inference.main(["--tiny", "--out", str(out), *flags])
    return status, json.loads(out.read_text())


def test_its_statistics_matter(vae):
    norms = [m for m in vae.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert all((m.running_mean.abs() > 1e-3).any() and (m.running_var != 1).all() for m in norms)


@torch.inference_mode()
def test_the_plain_vae_is_the_same(vae):
    images = inputs_of(Job("reconstruct", 2, False), vae.latent, "cpu")
    torch.testing.assert_close(plain_vae(vae).reconstruct(images), vae.reconstruct(images), rtol=1e-4, atol=1e-5)


def test_host_copies_go_from_pixels_to_pixels(vae):
    job = Job("reconstruct", 2, True)
    pixels = inputs_of(job, vae.latent, "cpu")
    (pixels_out,) = caller(BASE, model_of(BASE, vae, "cpu"), job, pixels, "cpu")()
    assert pixels.dtype == pixels_out.dtype == torch.uint8 and pixels.shape == pixels_out.shape == (2, 64, 64, 3)
    with torch.inference_mode():
        images = vae.reconstruct(pixels.permute(0, 3, 1, 2).float() / 127.5 - 1)
    # Half a grey level.
    assert (pixels_out.permute(0, 3, 1, 2) / 127.5 - 1 - images).abs().max() <= 0.51 / 127.5


def test_a_run_leaves_a_record_and_a_picture(tmp_path, capsys):
    status, record = run(tmp_path)
    assert status == 0
    rows = record["rows"]
    assert {(r["verb"], r["batch"], r["host_copies"]) for r in rows} == {
        (verb, batch, host)
        for verb in ("encode", "decode", "reconstruct")
        for batch in (1, 2)
        for host in (False, True)
    }
    assert {"plain eager fp32", "fastvae eager fp32"} <= {r["contender"] for r in rows}
    for r in rows:
        assert 0 < r["quartiles_ms"][0] <= r["median_ms"] <= r["quartiles_ms"][1] <= r["p99_ms"]
        assert len(r["samples_ms"]) == {1: 3, 2: 2}[r["batch"]]
    assert (tmp_path / "inference.png").read_bytes().startswith(b"\x89PNG")
    assert "x best peer" in capsys.readouterr().out


@pytest.mark.gpu
def test_captured_on_a_gpu(tmp_path):
    status, record = run(tmp_path)
    assert status == 0 and any(r["contender"].startswith("fastvae captured") for r in record["rows"])


def test_what_is_compiled_comes_last_and_in_place_of_what_was_there(tmp_path, monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda f, **_: f)
    monkeypatch.setattr(inference_contenders, "compile_obstacle", lambda _: None)
    status, record = run(tmp_path, "--verb", "reconstruct", "--compiled", "2")
    assert status == 0
    compiled = [r for r in record["rows"] if "compiled" in r["contender"]]
    assert [(r["batch"], r["host_copies"]) for r in compiled] == [(2, False)] * 2
    names = [r["contender"] for r in record["rows"] if (r["batch"], r["host_copies"]) == (2, False)]
    assert len(names) == len(set(names)) and names[-1] == compiled[-1]["contender"]


def spoilt(monkeypatch, name: str, by: float = 1.0) -> None:
    """One contender's last bias moves."""

    def other(form, vae, device, batches):
        model = model_of(form, vae, device, batches)
        if form.name == name:
            with torch.no_grad():
                next(p for n, p in model.decoder.named_parameters() if n.startswith("to_image") and p.dim() == 1).add_(
                    by
                )
        return model

    monkeypatch.setattr(bench_inference, "model_of", other)


@pytest.mark.parametrize("by", [1.0, float("nan")])
def test_ours_is_not_timed_when_wrong(tmp_path, monkeypatch, by):
    spoilt(monkeypatch, "fastvae eager fp32", by)
    status, record = run(tmp_path, "--verb", "decode")
    names = {row["contender"] for row in record["rows"]}
    assert status == 1 and "plain eager fp32" in names and "fastvae eager fp32" not in names
    assert any("WRONG, not timed: decode 1: fastvae eager fp32: relative error" in note for note in record["notes"])


def test_ours_that_fails_costs_the_others_nothing(tmp_path, monkeypatch):
    right = bench_inference.caller

    def failing(form, model, job, *arguments):
        if form.name == "fastvae eager fp32" and job.verb == "encode":
            raise FastvaeError("encode for batches of 1 could not be captured\nand more")
        return right(form, model, job, *arguments)

    monkeypatch.setattr(bench_inference, "caller", failing)
    status, record = run(tmp_path, "--verb", "encode", "decode", "--batch", "1")
    of = {verb: {r["contender"] for r in record["rows"] if r["verb"] == verb} for verb in ("encode", "decode")}
    assert status == 1 and of["decode"] - of["encode"] == {"fastvae eager fp32"} and of["encode"] < of["decode"]
    said = "FAILED: encode 1: fastvae eager fp32: FastvaeError: encode for batches of 1 could not be captured"
    assert said in record["notes"]


def test_all_jobs_share_one_accelerated_vae(vae):
    """So that a method is captured once, not once in each job."""
    fast = model_of(Form(True, "fp32", True, "accelerated"), vae, "cpu", (1, 8))
    assert fast._batch_sizes == (1, 8)
    for job in (Job("decode", 1, False), Job("encode", 8, True)):
        x = inputs_of(job, vae.latent, "cpu")
        assert caller(Form(True, "fp32", True, "accelerated"), fast, job, x, "cpu")()


def test_a_wrong_peer_is_left_out_and_noted(tmp_path, monkeypatch):
    spoilt(monkeypatch, "plain eager fp32 channels_last")
    status, record = run(tmp_path, "--verb", "decode", "--batch", "1", "--rounds", "1")
    assert status == 0 and "plain eager fp32 channels_last" not in {r["contender"] for r in record["rows"]}
    assert any("left out: decode 1: plain eager fp32 channels_last is wrong" in note for note in record["notes"])


@pytest.mark.parametrize("host_copies", [False, True])
@pytest.mark.parametrize("verb", VERBS)
def test_the_accelerated_form_does_the_same_job(verb, host_copies):
    """It is timed on a GPU only; here its results are the plain form's."""
    vae, job = trained_vae(2), Job(verb, 2, host_copies)
    x = inputs_of(job, vae.latent, "cpu")
    results, expected = (
        caller(form, model_of(form, vae, "cpu"), job, x, "cpu")()
        for form in (Form(True, "fp32", True, "accelerated"), BASE)
    )
    for y, exact in zip(results, expected, strict=True):
        assert y.dtype == exact.dtype and y.shape == exact.shape
        assert (y.double() - exact.double()).abs().max() <= (1 if y.dtype == torch.uint8 else 1e-4)
