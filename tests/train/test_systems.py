"""Every system that the paper compares with trains by the same trainer, on drawn faces, without diverging."""

import json

import numpy as np
import pytest
import torch

from fastvae.cli import main
from fastvae.config import ModelConfig
from fastvae.data import faces
from fastvae.data.packed import PackedImages, PackedWriter
from fastvae.inference.sampler import load_sampler
from fastvae.objectives import OBJECTIVES
from fastvae.recipes import RECIPES

SYSTEMS = ("plain", "dfc-123", "vae-gan", "dcgan", "wgan", "lsgan")
ADVERSARIAL = ("vae_gan", "wgan", "lsgan")
STEPS = 24


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> PackedImages:
    """72 faces of 32x32, of which 8 are held out."""
    path = tmp_path_factory.mktemp("drawn") / "faces.fvae"
    with PackedWriter(path, image_size=32, attribute_names=faces.ATTRIBUTES) as writer:
        images, attributes = faces.draw_faces(72, size=32)
        writer.append(images, splits=(np.arange(72) >= 64).astype(np.uint8), attributes=attributes)
    return PackedImages.open(path)


@pytest.mark.parametrize("system", SYSTEMS)
def test_it_trains_on_faces_and_draws_some(drawn, tmp_path, system):
    run = tmp_path / "run"
    flags = ["--image-size", "32", "--width", "4", "--latent", "8", "--batch-size", "16", "--log-every", "1"]
    if system.startswith("dfc"):
        flags += ["--vgg", "random"]
    if system == "wgan":  # several of the generator's steps within these few
        flags += ["--first-long", "1", "--long-round", "4"]
    assert (
        main(
            ["train", f"cifar10-{system}", "--data", str(drawn.path), "--steps", str(STEPS), "--out", str(run), *flags]
        )
        == 0
    )
    lines = [json.loads(line) for line in (run / "stats.jsonl").read_text().splitlines()]
    logged = [line for line in lines if "images_per_s" in line]
    assert len(logged) == STEPS and all(np.isfinite(v) for line in logged for v in line.values())
    sampler = load_sampler(run)
    images = sampler.sample(16, generator=torch.Generator().manual_seed(1))
    assert images.shape == (16, 3, 32, 32) and images.abs().max() <= 1
    # Pictures, and not the same one: neither saturated nor collapsed.
    assert images.abs().mean() < 0.95 and images.std(0).mean() > 1e-5
    assert main(["generate", str(run), "--count", "4", "--out", str(tmp_path / "samples.png")]) == 0
    if system in ("dcgan", "wgan", "lsgan"):
        assert any("generator" in line for line in logged)
        assert main(["reconstruct", str(run), str(tmp_path / "samples.png")]) == 1
    elif system != "vae-gan":  # which compares features that move
        term = "reconstruction" if system == "plain" else "rec"
        assert logged[-1][term] < 0.9 * logged[0][term]


@pytest.mark.parametrize("name", ADVERSARIAL)
def test_its_passes_are_one_graph_each(name):
    options, objective_class = OBJECTIVES[name]
    torch.manual_seed(0)
    objective = objective_class(options(), ModelConfig(image_size=16, width=2, latent=5))
    objective.train()
    images, noise = torch.rand(4, 3, 16, 16) * 2 - 1, torch.randn(4, objective.noise_size)
    passes = {part.name: part for step in range(6) for part in objective.passes(99 - step)}
    for part in passes.values():
        state = {n: {k: v.clone() for k, v in net.state_dict().items()} for n, net in objective.networks.items()}
        found = []
        # Traced whole, forward and backward, and then run operation by operation: all but the code generation.
        for loss in (part.loss, torch.compile(part.loss, fullgraph=True, backend="aot_eager")):
            for n, network in objective.networks.items():
                network.load_state_dict(state[n])
                network.zero_grad(set_to_none=True)
            total, terms = loss(images, noise)
            total.backward()
            grads = [p.grad for net in objective.networks.values() for p in net.parameters() if p.grad is not None]
            found.append([total.detach(), *terms.values(), *grads])
        for eager, compiled in zip(*found, strict=True):
            assert torch.allclose(eager, compiled, rtol=1e-4, atol=1e-5)


@pytest.mark.gpu
@pytest.mark.parametrize(
    "recipe", ["cifar10-vae-gan", "cifar10-dcgan", "cifar10-wgan", "cifar10-lsgan", "celeba64-multiview"]
)
def test_captured_it_is_the_same_run(drawn, tmp_path, recipe):
    flags = ["--image-size", "32", "--width", "4", "--latent", "8", "--batch-size", "16", "--log-every", "1"]
    flags += ["--device", "cuda", "--precision", "fp32", "--compile", "off", "--balance-every", "0", "--steps", "10"]
    flags += ["--first-long", "1", "--long-round", "4"] if recipe == "cifar10-wgan" else []
    flags += ["--vgg", "random"] if recipe == "celeba64-multiview" else []
    found = {}
    for graph in ("off", "on"):
        run = tmp_path / graph
        command = ["train", recipe, "--data", str(drawn.path), "--out", str(run), "--cuda-graph", graph, *flags]
        assert main(command) == 0
        lines = [json.loads(line) for line in (run / "stats.jsonl").read_text().splitlines()]
        losses = [line for line in lines if "images_per_s" in line]
        found[graph] = [{k: v for k, v in line.items() if k not in ("seconds", "images_per_s")} for line in losses]
    for captured, eager in zip(found["on"], found["off"], strict=True):
        assert captured == pytest.approx(eager, rel=2e-2, abs=1e-3)


def test_recipes_of_the_systems_are_the_same_on_both_data_sets():
    for system in (*SYSTEMS, "dfc-345"):
        faces_recipe, cifar = RECIPES[f"celeba64-{system}"](), RECIPES[f"cifar10-{system}"]()
        assert faces_recipe.objective == cifar.objective and faces_recipe.train == cifar.train
        assert (faces_recipe.model.image_size, cifar.model.image_size) == (64, 32)


def test_ablations_change_what_they_name():
    assert RECIPES["celeba64-relu4_1"]().objective.layers == ("relu4_1",)
    weights = {name: RECIPES[name]().objective for name in ("celeba64", "celeba64-beta0.01", "celeba64-alpha0.01")}
    assert {n: (o.alpha, o.beta) for n, o in weights.items()} == {
        "celeba64": (1, 0.5),
        "celeba64-beta0.01": (1, 0.01),
        "celeba64-alpha0.01": (0.01, 1),
    }
    assert RECIPES["celeba64-no-rec"]().objective.beta == 0
    assert [RECIPES[f"celeba64-label{s}"]().objective.label_scale for s in (1, 10, 100)] == [1, 10, 100]
