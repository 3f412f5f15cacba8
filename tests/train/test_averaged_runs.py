"""Runs with `--ema`: resumed to the bit, and whatever is made of them is made of the average."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import fastvae
from fastvae.cli import main
from fastvae.data.packed import PackedImages
from fastvae.errors import FastvaeError, UsageError
from fastvae.pictures import psnr_db, to_images
from fastvae.runs.sampler import load_sampler, load_views
from fastvae.train.checkpoint_files import latest

TINY = ["--image-size", "32", "--width", "2", "--latent", "4", "--batch-size", "8", "--held-out", "8"]
TINY += ["--log-every", "1", "--precision", "fp32", "--device", "cpu", "--compile", "off"]


def trained(packed: PackedImages, out: Path, recipe: str, *flags: str) -> Path:
    if "--resume" not in flags:
        flags = ("--data", str(packed.path), "--out", str(out), *TINY, *flags)
    assert main(["train", *([] if "--resume" in flags else [recipe]), *flags]) == 0
    return out


def tensors(run: Path) -> dict[str, torch.Tensor]:
    folder = latest(run)
    return load_file(folder / "model.safetensors") | load_file(folder / "optimizer.safetensors")


def lines(run: Path) -> list[dict]:
    timed = ("seconds", "images_per_s")
    read = [json.loads(line) for line in (run / "stats.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in timed} for line in read]


@pytest.fixture(scope="module")
def averaged(packed, tmp_path_factory) -> Path:
    """Six steps of a plain VAE whose weights are averaged; checkpoints of steps 3 and 6."""
    flags = ["--steps", "6", "--ema", "0.9", "--lr", "0.01", "--kl-warmup", "0.8", "--checkpoint-every", "3"]
    return trained(packed, tmp_path_factory.mktemp("averaged") / "run", "celeba64-plain", *flags)


@pytest.fixture
def run(averaged, tmp_path) -> Path:
    return Path(shutil.copytree(averaged, tmp_path / "run"))


WGAN = ("--warmup-generator-steps", "1", "--warmup-critic-steps", "1", "--critic-steps", "2")
VIEWS = ("--vgg", "random", "--layers", "relu1_1", "relu2_1", "--kl-warmup", "0.9", "--critic", "balanced")


@pytest.mark.parametrize(
    ("recipe", "flags"),
    [("celeba64-vae-gan", ("--kl-warmup", "0.9")), ("celeba64-wgan", WGAN), ("celeba64-multiview", VIEWS)],
    ids=["vae-gan", "wgan", "multiview"],
)
def test_resuming_is_bit_exact(packed, tmp_path, recipe, flags):
    flags = (*flags, "--ema", "0.9", "--steps", "5", "--evaluate-every", "2", "--balance-every", "0")
    straight = trained(packed, tmp_path / "straight", recipe, *flags, "--checkpoint-every", "3")
    broken = shutil.copytree(straight, tmp_path / "broken")
    shutil.rmtree(latest(broken))
    trained(packed, broken, recipe, "--resume", str(broken))
    expected, found = tensors(straight), tensors(broken)
    assert expected.keys() == found.keys() and any(key.startswith("ema.") for key in found)
    assert all(torch.equal(expected[key], found[key]) for key in expected)
    assert lines(straight) == lines(broken)


def test_what_loads_a_run_gets_the_average(averaged, caplog):
    saved = tensors(averaged)
    caplog.set_level("INFO", logger="fastvae")
    chosen = fastvae.load(averaged)
    assert "taking the moving average of the weights; --weights raw" in caplog.text
    for vae, prefix, kind in (
        (chosen, "ema.", "ema"),
        (fastvae.load(averaged, weights="ema"), "ema.", "ema"),
        (fastvae.load(averaged, weights="raw"), "", "raw"),
        (load_sampler(averaged, weights="raw"), "", "raw"),
        (load_views(averaged)["run"], "ema.", "ema"),
    ):
        assert vae.run.weights == kind
        assert all(torch.equal(t, saved[f"{prefix}{key}"]) for key, t in vae.state_dict().items())
    with pytest.raises(UsageError, match="weights must be auto, ema or raw; got 'last'"):
        fastvae.load(averaged, weights="last")


def test_a_view_and_a_generator_have_theirs(packed, tmp_path):
    flags = ("--ema", "0.9", "--steps", "2", "--balance-every", "0")
    views = trained(packed, tmp_path / "views", "celeba64-multiview", *VIEWS, *flags)
    gan = trained(packed, tmp_path / "gan", "celeba64-dcgan", *flags)
    for weights, prefix in (("auto", "ema."), ("raw", "")):
        decoder = load_views(views, weights=weights)["views/relu2_1"].decoder
        generator = load_sampler(gan, weights=weights)
        for model, run, name in ((decoder, views, "relu2_1.decoder"), (generator, gan, "generator")):
            saved = tensors(run)
            assert all(torch.equal(t, saved[f"{prefix}{name}.{key}"]) for key, t in model.state_dict().items())


def test_held_out_numbers_are_of_the_average(packed, averaged):
    held_out = to_images(torch.from_numpy(packed.images[packed.held_out()]))
    found = {}
    for weights in ("ema", "raw"):
        with torch.inference_mode():
            fakes = fastvae.load(averaged, weights=weights).reconstruct(held_out)
        found[weights] = psnr_db(held_out, fakes).mean().item()
    logged = lines(averaged)[-1]["held_out_psnr_db"]
    assert logged == pytest.approx(found["ema"], abs=1e-3) and abs(logged - found["raw"]) > 0.01
    assert fastvae.load(averaged).run.held_out["psnr_db"] == logged
    raw = fastvae.load(averaged, weights="raw").run
    assert (raw.held_out, raw.picture) == ({}, None), "they are not of these weights"


def test_a_saved_folder_says_which_it_holds(averaged, tmp_path):
    for weights in ("ema", "raw"):
        vae = fastvae.load(averaged, weights=weights)
        vae.save_pretrained(tmp_path / weights)
        for again in (fastvae.load(tmp_path / weights), fastvae.load(tmp_path / weights, weights=weights)):
            assert again.run.weights == weights
            assert all(torch.equal(t, vae.state_dict()[key]) for key, t in again.state_dict().items())
    assert "exponential moving average over the steps, decay 0.9" in (tmp_path / "ema" / "README.md").read_text()
    assert "of the last step, not the run's moving average" in (tmp_path / "raw" / "README.md").read_text()
    with pytest.raises(FastvaeError, match="holds only a moving average of the weights"):
        fastvae.load(tmp_path / "ema", weights="raw")
    with pytest.raises(FastvaeError, match="holds no moving average of the weights"):
        fastvae.load(tmp_path / "raw", weights="ema")


def test_commands_take_the_weights_that_are_named(averaged, tmp_path):
    pictures = {}
    for name, command in {
        "generate": ["generate", str(averaged), "--count", "4"],
        "figures": ["figures", "samples", str(averaged), "--rows", "2", "--columns", "2"],
    }.items():
        for weights in ((), ("--weights", "ema"), ("--weights", "raw")):
            out = tmp_path / f"{name}{''.join(weights)}.png"
            assert main([*command, "--out", str(out), *weights]) == 0
            pictures[name, weights[1:]] = out.read_bytes()
        assert pictures[name, ()] == pictures[name, ("ema",)] != pictures[name, ("raw",)]


def test_an_average_may_begin_with_a_run_that_is_resumed(packed, tmp_path, caplog):
    run = trained(packed, tmp_path / "run", "celeba64-plain", "--steps", "2", "--ema", "0")
    before = tensors(run)
    assert main(["train", "--resume", str(run), "--steps", "3", "--ema", "0.9"]) == 0
    assert "holds no average of the weights: that of --ema begins with its weights" in caplog.text
    after = tensors(run)
    assert after["ema.vae"] == 1
    for key in ("encoder.mean.weight", "decoder.stages.0.1.running_var"):
        torch.testing.assert_close(after[f"ema.{key}"], before[key].lerp(after[key], 0.9))


def test_an_average_may_end(run):
    assert main(["train", "--resume", str(run), "--steps", "7", "--ema", "0"]) == 0
    assert not any(key.startswith("ema.") for key in tensors(run))
    assert fastvae.load(run).run.weights is None


def test_an_average_that_is_damaged_is_told(run, capsys):
    file = latest(run) / "model.safetensors"
    metadata = {"fastvae": json.dumps(fastvae.train.checkpoint_files.read_metadata(file))}
    saved = load_file(file)
    for broken, said in (
        ({**saved, "ema.decoder.linear.bias": saved["decoder.linear.bias"] * float("nan")}, "holds NaN or infinity"),
        ({key: t for key, t in saved.items() if key != "ema.vae"}, "expected ema.vae"),
        ({**saved, "ema.vae": torch.tensor(-10.0)}, "ema.vae counts -10"),
    ):
        save_file(broken, file, metadata)
        assert main(["train", "--resume", str(run), "--steps", "7"]) == 1
        assert said in capsys.readouterr().err


@pytest.mark.parametrize("decay", ["1", "-0.1", "nan"])
def test_decays_out_of_range_are_refused(decay, tmp_path, capsys):
    assert main(["train", "demo", f"--ema={decay}", "--out", str(tmp_path / "run")]) == 2
    assert "ema must be 0 (no average) or more, and below 1" in capsys.readouterr().err
