"""`--kl-warmup`: the KL divergence's weight rises on the device, once, and no step is compiled for it."""

import functools
import json
import shutil

import pytest
import torch
from torch._dynamo.testing import CompileCounter

from fastvae.cli import main
from fastvae.config import Config, ModelConfig, TrainConfig
from fastvae.objectives import OBJECTIVES
from fastvae.train.build import Training, build
from fastvae.train.checkpoint_files import latest, read_metadata
from fastvae.train.kl_warmup import KlWarmup

TINY = ["--image-size", "32", "--width", "2", "--latent", "4", "--batch-size", "8", "--held-out", "8"]
TINY += ["--log-every", "1", "--precision", "fp32", "--device", "cpu"]
WITH_KL = ("plain_vae", "dfc_vae", "vae_wgan", "multi_view", "vae_gan")


def training(name: str, **options) -> Training:
    options_class = OBJECTIVES[name][0]
    if hasattr(options_class, "vgg"):
        options = {"vgg": "random", "layers": ("relu1_1",), **options}
    train = TrainConfig(device="cpu", precision="fp32", compile="off", batch_size=4)
    return build(Config("test", options_class(**options), model=ModelConfig(16, width=2, latent=3), train=train))


def test_all_objectives_with_a_kl_divergence_have_it():
    assert {name for name, (options, _) in OBJECTIVES.items() if hasattr(options, "kl_warmup")} == set(WITH_KL)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("plain_vae", {"alpha": 0.7}),
        ("dfc_vae", {"alpha": 0.7}),
        ("vae_wgan", {"alpha": 0.7}),
        ("vae_wgan", {"alpha": 0.7, "order": "critic_first"}),
        ("multi_view", {"alpha": 0.7}),
        ("vae_gan", {}),
    ],
)
def test_the_share_scales_the_divergence_alone(name, options):
    images, noise = torch.rand(4, 3, 16, 16) * 2 - 1, torch.randn(4, 8)
    plain, warmed = training(name, **options).objective, training(name, kl_warmup=0.5, **options).objective
    noise = noise[:, : plain.noise_size]
    totals, terms = {}, {}
    for share in (1.0, 0.0, 0.25):
        warmed.kl_share.fill_(share)
        totals[share], terms = warmed.passes(0)[-1].loss(images, noise)
    expected, _ = plain.passes(0)[-1].loss(images, noise)
    assert totals[1.0] == expected
    divergence = options.get("alpha", 1.0) * next(value for key, value in terms.items() if key.endswith("kl"))
    for share in (0.0, 0.25):
        torch.testing.assert_close(totals[1.0] - totals[share], (1 - share) * divergence, rtol=1e-3, atol=1e-4)


def test_it_rises_linearly_in_place():
    objective = training("plain_vae", kl_warmup=0.5, alpha=2.0).objective
    share, warmup = objective.kl_share, KlWarmup(objective, steps=4)
    seen = []
    for step in (0, 1, 2, 3, 4, 5):
        warmup.set_step(step)
        seen.append((share.item(), warmup.weight))
    assert seen == [(0.0, 0.0), (0.25, 0.5), (0.5, 1.0), (0.75, 1.5), (1.0, None), (1.0, None)]
    assert objective.kl_share is share


def test_without_it_nothing_is_multiplied():
    assert all(training(name).objective.kl_share is None for name in WITH_KL)


def test_no_step_is_compiled_for_a_weight(packed, tmp_path, monkeypatch):
    counter = CompileCounter()
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=counter))
    flags = ["--data", str(packed.path), *TINY, "--steps", "4", "--kl-warmup", "1", "--alpha", "100", "--ema", "0"]
    for mode in ("on", "off"):
        assert main(["train", "celeba64-plain", *flags, "--compile", mode, "--out", str(tmp_path / mode)]) == 0
    assert counter.frame_count == 1
    stats = [[json.loads(s) for s in (tmp_path / m / "stats.jsonl").read_text().splitlines()] for m in ("on", "off")]
    assert [line["kl_weight"] for line in stats[0] if "kl" in line] == [0.0, 25.0, 50.0, 75.0]
    for compiled, eager in zip(*stats, strict=True):
        for name in eager.keys() & {"kl", "reconstruction"}:
            assert compiled[name] == pytest.approx(eager[name], rel=2e-3)


@pytest.fixture(scope="module")
def risen(packed, tmp_path_factory):
    """Four steps of a plain VAE, in the first two of which the weight rises."""
    run = tmp_path_factory.mktemp("risen") / "run"
    flags = ["--data", str(packed.path), *TINY, "--compile", "off", "--kl-warmup", "0.5", "--steps", "4"]
    assert main(["train", "celeba64-plain", "--out", str(run), *flags]) == 0
    return run


def weights(run) -> dict[int, float | None]:
    lines = [json.loads(line) for line in (run / "stats.jsonl").read_text().splitlines()]
    return {line["step"]: line.get("kl_weight") for line in lines if "kl" in line}


def test_the_weight_is_logged_while_it_rises(risen):
    assert weights(risen) == {1: 0.0, 2: 0.5, 3: None, 4: None}


def test_a_weight_that_has_risen_stays_in_a_longer_run(risen, tmp_path):
    run = shutil.copytree(risen, tmp_path / "run")
    assert main(["train", "--resume", str(run), "--steps", "12"]) == 0
    assert weights(run) == {1: 0.0, 2: 0.5} | dict.fromkeys(range(3, 13))


def test_in_a_shorter_run_it_rises_for_the_share_of_that(packed, tmp_path):
    run = tmp_path / "run"
    flags = ["--data", str(packed.path), *TINY, "--compile", "off", "--kl-warmup", "0.5", "--steps", "20"]
    # Ends after its first step.
    assert main(["train", "celeba64-plain", "--out", str(run), *flags, "--minutes", "0.000001"]) == 0
    assert main(["train", "--resume", str(run), "--steps", "6", "--minutes", "9"]) == 0
    assert weights(run) == {1: 0.0, 2: pytest.approx(1 / 3), 3: pytest.approx(2 / 3), 4: None, 5: None, 6: None}


def test_a_resumed_run_keeps_its_share(risen, tmp_path, capsys):
    assert main(["train", "--resume", str(risen), "--kl-warmup", "0.9", "--steps", "5"]) == 2
    assert "a resumed run keeps its model, objective" in capsys.readouterr().err


def test_a_run_of_a_version_without_it_is_resumed(trained):
    """Neither its config nor its checkpoints name the option."""
    from safetensors.torch import load_file, save_file

    values = json.loads((trained / "config.json").read_text())
    del values["objective"]["kl_warmup"], values["train"]["ema"], values["initial_weights"]
    (trained / "config.json").write_text(json.dumps(values))
    file = latest(trained) / "model.safetensors"
    metadata = read_metadata(file)
    del metadata["config"]["objective"]["kl_warmup"]
    save_file(load_file(file), file, {"fastvae": json.dumps(metadata)})
    state = json.loads((latest(trained) / "state.json").read_text())
    del state["kl_warmup_steps"]
    (latest(trained) / "state.json").write_text(json.dumps(state))
    assert main(["train", "--resume", str(trained), "--steps", "5"]) == 0


@pytest.mark.parametrize("share", ["-0.1", "1.5", "nan"])
@pytest.mark.parametrize("recipe", ["demo", "celeba64-plain", "celeba64-vae-gan"])
def test_shares_out_of_range_are_refused(share, recipe, tmp_path, capsys):
    assert main(["train", recipe, f"--kl-warmup={share}", "--out", str(tmp_path / "run")]) == 2
    assert "kl-warmup must be from 0 to 1" in capsys.readouterr().err
