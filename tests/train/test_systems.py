"""Every system that the paper compares with trains by the same trainer, on drawn faces, without diverging."""

import json
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
import torch

from fastvae.cli import main
from fastvae.config import Config, ModelConfig, TrainConfig
from fastvae.data.faces import faces
from fastvae.data.packed import PackedImages, PackedWriter
from fastvae.lossnet import TAPS
from fastvae.objectives import OBJECTIVES, Pass
from fastvae.optim import ClippedAdam, ClippedRMSprop
from fastvae.pictures import to_images
from fastvae.recipes import RECIPES
from fastvae.runs.sampler import load_sampler
from fastvae.train.build import Training, build

SYSTEMS = ("plain", "dfc-123", "vae-gan", "dcgan", "wgan", "lsgan")
ADVERSARIAL = ("vae_gan", "dcgan", "wgan", "lsgan")
PRECISIONS = ("fp32", "bf16")
# Fewer in bfloat16, which a processor without instructions for it computes ten times as slowly.
STEPS = {"fp32": 24, "bf16": 8}
SMALL = TrainConfig(device="cpu", precision="fp32", compile="off", batch_size=4)


def training(
    name: str,
    precision: str,
    *,
    image_size: int = 32,
    stages: int | None = None,
    layers: tuple[str, ...] = ("relu1_1", "relu2_1"),
) -> Training:
    """The smallest one of an objective, on the CPU; every step of a WGAN moves its generator."""
    options_class = OBJECTIVES[name][0]
    options = {"warmup_generator_steps": 1, "warmup_critic_steps": 1, "critic_steps": 1} if name == "wgan" else {}
    if hasattr(options_class, "vgg"):
        options = {"vgg": "random", "layers": layers}
    model = ModelConfig(image_size=image_size, width=2, latent=5, stages=stages)
    return build(Config("test", options_class(**options), model=model, train=replace(SMALL, precision=precision)))


def batch(of: Training, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    pixels = torch.randint(0, 256, (4, size, size, 3), dtype=torch.uint8)
    return pixels, torch.randn(4, of.objective.noise_size)


@pytest.mark.parametrize("image_size", [28, 32])
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_objective_trains_in_either_precision(name, precision, image_size):
    of = training(name, precision, image_size=image_size)
    networks = of.objective.networks
    before = {n: {k: p.detach().clone() for k, p in net.named_parameters()} for n, net in networks.items()}
    for number in range(3):
        terms = of.step(*batch(of, image_size), number)
        assert terms and all(torch.isfinite(value) for value in terms.values()), terms
    for n, network in networks.items():
        for key, p in network.named_parameters():
            assert p.dtype == torch.float32 and torch.isfinite(p).all()
            # A bias may have no say: the WGAN's last one cancels between real and generated images.
            assert key.endswith("bias") or not torch.equal(p, before[n][key]), f"{n}.{key} has not moved"


@pytest.mark.parametrize("image_size", [8, 48, 128, 256])
@pytest.mark.parametrize("name", ["vae_wgan", "vae_gan", "dcgan"])
def test_every_network_trains_at_every_size(name, image_size):
    of = training(name, "fp32", image_size=image_size, layers=("relu1_1",))
    before = {n: [p.detach().clone() for p in net.parameters()] for n, net in of.objective.networks.items()}
    terms = of.step(*batch(of, image_size), 0)
    assert terms and all(torch.isfinite(value) for value in terms.values()), terms
    for n, network in of.objective.networks.items():
        for (key, p), old in zip(network.named_parameters(), before[n], strict=True):
            assert torch.isfinite(p).all() and (key.endswith("bias") or not torch.equal(p, old)), f"{n}.{key}"


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> PackedImages:
    """72 faces of 32x32, of which 8 are held out."""
    path = tmp_path_factory.mktemp("drawn") / "faces.fvae"
    with PackedWriter(path, image_size=32, attribute_names=faces.ATTRIBUTES) as writer:
        images, attributes = faces.draw_faces(72, size=32)
        writer.append(images, splits=(np.arange(72) >= 64).astype(np.uint8), attributes=attributes)
    return PackedImages.open(path)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("system", SYSTEMS)
def test_it_trains_on_faces_and_draws_some(drawn, tmp_path, system, precision):
    run = tmp_path / "run"
    flags = ["--image-size", "32", "--width", "4", "--latent", "8", "--batch-size", "16", "--log-every", "1"]
    flags += ["--precision", precision, "--device", "cpu"]
    if system.startswith("dfc"):
        flags += ["--vgg", "random"]
    if system == "wgan":  # several of the generator's steps within these few
        flags += ["--warmup-generator-steps", "1", "--warmup-critic-steps", "4"]
    flags += ["--data", str(drawn.path), "--steps", str(STEPS[precision]), "--out", str(run)]
    assert main(["train", f"cifar10-{system}", *flags]) == 0
    lines = [json.loads(line) for line in (run / "stats.jsonl").read_text().splitlines()]
    logged = [line for line in lines if "images_per_s" in line]
    assert len(logged) == STEPS[precision] and all(np.isfinite(v) for line in logged for v in line.values())
    sampler = load_sampler(run)
    images = sampler.sample(16, generator=torch.Generator().manual_seed(1))
    assert images.shape == (16, 3, 32, 32) and images.abs().max() <= 1
    # Pictures, and not the same one: neither saturated nor collapsed.
    assert images.abs().mean() < 0.95 and images.std(0).mean() > 1e-3 * images.abs().mean() > 0
    assert main(["generate", str(run), "--count", "4", "--out", str(tmp_path / "samples.png")]) == 0
    if system in ("dcgan", "wgan", "lsgan"):
        assert any("generator" in line for line in logged)
        assert main(["reconstruct", str(run), str(tmp_path / "samples.png")]) == 1
    elif system != "vae-gan":  # which compares features that move
        term = "reconstruction" if system == "plain" else "rec"
        assert logged[-1][term] < 0.9 * logged[0][term]


@pytest.mark.parametrize("precision", ["fp32", pytest.param("bf16", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", ADVERSARIAL)
def test_its_passes_are_one_graph_each(name, precision):
    # Two stages have a first, an inner and a last layer, too.
    of = training(name, precision, stages=None if precision == "fp32" else 2)
    for part in of.objective.passes(0):
        # Traced whole, forward and backward, and then run operation by operation: all but the code generation.
        compiled = torch.compile(of.step._loss(part), fullgraph=True, backend="aot_eager")
        assert_same_results(of, precision, part, compiled)


@pytest.mark.slow
def test_a_generators_pass_compiles():
    of = training("dcgan", "bf16", stages=2)
    part = of.objective.passes(0)[-1]
    assert_same_results(of, "bf16", part, torch.compile(of.step._loss(part), fullgraph=True, dynamic=False))


def assert_same_results(of: Training, precision: str, part: Pass, compiled: Callable) -> None:
    """Value, terms and each network's gradient are those of the eager pass, from the same state and batch.

    In bfloat16 no farther from float32's than twice the eager pass's: half of VAE/GAN's gradients is rounding errors.
    """
    networks = of.objective.networks
    state = {n: {k: v.clone() for k, v in net.state_dict().items()} for n, net in networks.items()}
    given, found = batch(of, 32), []

    def exactly(pixels, noise):
        total, terms = part.loss(to_images(pixels), noise)
        return total, terms | part.decide(terms)

    for loss, context in (
        (of.step._loss(part), of.step.precision()),
        (compiled, of.step.precision()),
        (exactly, nullcontext()),
    ):
        for n, network in networks.items():
            network.load_state_dict(state[n])
            network.zero_grad(set_to_none=True)
        with context:
            total, terms = loss(*given)
        total.backward()
        grads = [[p.grad.flatten() for p in net.parameters() if p.grad is not None] for net in networks.values()]
        found.append([total.detach(), *terms.values(), *(torch.cat(g) for g in grads if g)])
    # Rounding to bfloat16 happens at other places where operations are fused.
    tolerance = 1e-4 if precision == "fp32" else 5e-2
    for eager, ours, exact in zip(*found, strict=True):
        assert (ours - exact).norm() <= 2 * (eager - exact).norm() + tolerance * exact.norm() + 1e-5


@pytest.mark.gpu
@pytest.mark.parametrize(
    "recipe", ["cifar10-vae-gan", "cifar10-dcgan", "cifar10-wgan", "cifar10-lsgan", "celeba64-multiview"]
)
def test_captured_it_is_the_same_run(drawn, tmp_path, recipe):
    flags = ["--image-size", "32", "--width", "4", "--latent", "8", "--batch-size", "16", "--log-every", "1"]
    flags += ["--device", "cuda", "--precision", "fp32", "--compile", "off", "--balance-every", "2", "--steps", "10"]
    flags += ["--warmup-generator-steps", "1", "--warmup-critic-steps", "4"] if recipe == "cifar10-wgan" else []
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


def test_recipes_of_the_systems_differ_by_what_their_authors_change_for_cifar10():
    changed = {"vae-gan": {"gamma": 1e-5}, "lsgan": {"margin": 8e-4}}
    for system in (*SYSTEMS, "dfc-345"):
        faces_recipe, cifar = RECIPES[f"celeba64-{system}"](), RECIPES[f"cifar10-{system}"]()
        assert replace(faces_recipe.objective, **changed.get(system, {})) == cifar.objective
        assert faces_recipe.train == cifar.train
        assert (faces_recipe.model.image_size, cifar.model.image_size) == (64, 32)


ADAM = {"betas": (0.5, 0.999), "eps": 1e-8}
# By system: learning rate and optimiser of every network, as its authors' code has them.
OPTIMISERS = {
    "plain": (5e-4, ClippedAdam, ADAM),
    "dfc-123": (5e-4, ClippedAdam, ADAM),
    "vae-gan": (4e-4, ClippedRMSprop, {"alpha": 0.9, "eps": 1e-8, "clip": None}),
    "dcgan": (2e-4, ClippedAdam, ADAM),
    "wgan": (5e-5, ClippedRMSprop, {"alpha": 0.99, "eps": 1e-8}),
    "lsgan": (1e-4, ClippedAdam, ADAM),
}


@pytest.mark.parametrize("system", SYSTEMS)
def test_optimisers_are_those_of_the_authors_code(system):
    lr, optimizer, options = OPTIMISERS[system]
    config = RECIPES[f"cifar10-{system}"]()
    small = replace(config.objective, **({"vgg": "random"} if hasattr(config.objective, "vgg") else {}))
    of = build(Config("test", small, model=ModelConfig(image_size=32, width=2, latent=5), train=SMALL))
    for name, update in of.objective.updates(config.train.lr).items():
        assert type(update.optimizer) is optimizer
        for group in update.optimizer.param_groups:
            assert {"lr": float(group["lr"])} | {key: group[key] for key in options} == {"lr": lr} | options
            if system == "wgan":
                assert group["clip"] == (0.01 if name == "discriminator" else None)


def test_ablations_change_what_they_name():
    assert RECIPES["celeba64-relu4_1"]().objective.layers == ("relu4_1",)
    assert all(RECIPES[f"celeba64-{name}"]().objective.layer_weights == "equal" for name in ("multiview", *TAPS))
    weights = {name: RECIPES[name]().objective for name in ("celeba64", "celeba64-beta0.01", "celeba64-alpha0.01")}
    assert {n: (o.alpha, o.beta) for n, o in weights.items()} == {
        "celeba64": (0.5, 0.5),
        "celeba64-beta0.01": (1, 0.01),
        "celeba64-alpha0.01": (0.01, 1),
    }
    assert RECIPES["celeba64-no-rec"]().objective.beta == 0
    assert [RECIPES[f"celeba64-label{s}"]().objective.label_scale for s in (1, 10, 100)] == [1, 10, 100]
