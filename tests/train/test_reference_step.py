"""The training step against Algorithm 1 in stock torch: same weights, batches and noise, compared after every step."""

import copy
from itertools import islice, permutations
from math import factorial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bench.measuring.closeness import assert_close, relative_error
from bench.step.reference_step import LR, ReferenceStep
from fastvae.config import ModelConfig
from fastvae.kernels import adam_clip_
from fastvae.objectives.vae_wgan import VaeWgan, VaeWganOptions
from fastvae.pictures import to_images
from fastvae.train import step as step_module
from fastvae.train.step import Step
from tests.objectives.test_vae_wgan import TinyLossNetwork

# 32x32 and not less: from a map of one pixel the decoder can only draw images of one colour.
MODEL = ModelConfig(image_size=32, width=2, latent=5)

# Options of the objective, arguments of the reference.
FORMS = {
    "paper": ({}, {}),
    "rmsprop": ({"critic_optimizer": "rmsprop"}, {"critic_optimizer": "rmsprop"}),
    "weights_except_norm": ({"clipped": "weights_except_norm"}, {"clip_norms": False}),
}


class SmoothLossNetwork(TinyLossNetwork):
    """The tiny loss network without kinks."""

    def forward(self, images):
        first = F.silu(self.conv1(images * 3))
        return first, F.silu(self.conv2(first))


def smooth(network: nn.Module) -> None:
    """Puts SiLU in the place of every LeakyReLU.

    At a kink float32 decides by chance which slope a gradient gets, so that errors of the gradient are either tiny or a
    thousand times as large, and one run says nothing about another.
    """
    for parent in network.modules():
        for name, child in parent.named_children():
            if isinstance(child, nn.LeakyReLU):
                setattr(parent, name, nn.SiLU())


def build(form: str, loss_network: type[nn.Module] = TinyLossNetwork) -> VaeWgan:
    torch.manual_seed(3)
    options = VaeWganOptions(layers=("relu1_1", "relu2_1"), **FORMS[form][0])
    objective = VaeWgan(options, MODEL, loss_network())
    objective.train()
    return objective


def in_float64(objective: VaeWgan) -> VaeWgan:
    twin = copy.deepcopy(objective)
    for network in [*twin.networks.values(), twin.loss_network]:
        network.double()
    return twin


def batches(count: int, size: int = 8):
    """Pixels uint8 [B, 32, 32, 3] and noise float64 [B, latent]."""
    generator = torch.Generator().manual_seed(5)
    for _ in range(count):
        pixels = torch.randint(0, 256, (size, 32, 32, 3), dtype=torch.uint8, generator=generator)
        # Of float32's precision, so that both dtypes see the same numbers.
        yield pixels, torch.randn(size, MODEL.latent, generator=generator).double()


def states(networks: dict[str, nn.Module]):
    """Every parameter and batch statistic by name, the same whosever modules they are in."""
    for name, network in networks.items():
        for index, value in enumerate(network.state_dict().values()):
            if value.is_floating_point():
                yield f"{name}[{index}]", value.clone()


def compare_in_float64(form: str, steps: int, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(step_module, "to_images", lambda pixels: to_images(pixels).double())
    objective = in_float64(build(form))
    reference = ReferenceStep(objective, **FORMS[form][1])
    ours = Step(objective, objective.updates(LR), device=torch.device("cpu"))
    for step, (pixels, noise) in enumerate(batches(steps)):
        terms, expected = ours(pixels, noise, step), reference(pixels, noise)
        for name in expected:
            # The critic's loss is a difference of scores near 0.1, which clipping everything makes all but equal.
            assert terms[name].item() == pytest.approx(expected[name].item(), rel=1e-9, abs=1e-12), (step, name)
        for (name, x), (_, y) in zip(states(objective.networks), states(reference.networks), strict=True):
            assert relative_error(x, y) < 1e-9, (step, name)


@pytest.mark.parametrize("form", FORMS)
def test_float64_equals_the_reference(form, monkeypatch):
    compare_in_float64(form, 5, monkeypatch)


def unclipped(*tensors, clip, **numbers):
    adam_clip_(*tensors, clip=None, **numbers)


def zero_padded(x, weight, bias, upsample=1, packed=None):
    return F.conv2d(F.interpolate(x, scale_factor=float(upsample)), weight, bias, padding=1)


MISTAKES = {
    "replication": ("fastvae.nn.replication_conv.replicate_conv2d", zero_padded),
    "layer weights": ("fastvae.objectives.layer_weights.paper_weights", lambda channels: [100 / c for c in channels]),
    "reversal": ("fastvae.objectives.vae_wgan.reverse_gradient", lambda x: x),
    "clip": ("fastvae.optim.adam_clip_", unclipped),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_seen(mistake, monkeypatch):
    monkeypatch.setattr(*MISTAKES[mistake])
    with pytest.raises(AssertionError):
        compare_in_float64("paper", 1, monkeypatch)


def gradients(network: nn.Module) -> torch.Tensor:
    return torch.cat([p.grad.flatten() for p in network.parameters()])


def statistics(network: nn.Module) -> torch.Tensor:
    return torch.cat([b.flatten() for b in network.buffers() if b.is_floating_point()])


def worst(candidates: list[torch.Tensor], exact: torch.Tensor) -> torch.Tensor:
    return max(candidates, key=lambda x: relative_error(x, exact))


def compare_in_float32(form: str, steps: int, size: int) -> None:
    """Every step of ours must be within twice the reference's own float32 error, and the floor, of float64.

    A step is a gradient and an update by it. The two are compared one after the other, since Adam's first update is
    nearly the gradient's sign, which float32 does not know for entries near zero. The reference's own error is the
    largest over orders of the batch, which change nothing but the rounding: in one order it may be small by luck.
    There are six orders, so that a batch must have 3 images or more.
    """
    objective = build(form, SmoothLossNetwork)
    for network in objective.networks.values():
        smooth(network)
    plain, exact = (ReferenceStep(o, **FORMS[form][1]) for o in (objective, in_float64(objective)))
    scores = []
    exact.networks["critic"].register_forward_hook(lambda module, inputs, output: scores.append(output.detach()))

    updates = objective.updates(LR)
    ours, used = Step(objective, updates, device=torch.device("cpu")), {}
    for update, names in (("vae", ("encoder", "decoder")), ("critic", ("critic",))):
        for name in names:
            network = objective.networks[name]
            updates[update].optimizer.register_step_pre_hook(
                lambda *_, name=name, network=network: used.update({name: gradients(network)})
            )

    orders = torch.tensor(list(islice(permutations(range(size)), 0, None, factorial(size) // 6)))
    losses = []
    for step, (pixels, noise) in enumerate(batches(steps, size)):
        terms, exact_terms = ours(pixels, noise.float(), step), exact.backward(pixels, noise)
        runs = [copy.deepcopy(plain) for _ in orders]
        plain_terms = [r.backward(pixels[order], noise[order].float()) for r, order in zip(runs, orders, strict=True)]
        losses.append((terms, plain_terms, exact_terms))
        for name in used:
            for what in (gradients, statistics):
                expected = what(exact.networks[name])
                found = used[name] if what is gradients else what(objective.networks[name])
                assert_close(found, worst([what(r.networks[name]) for r in runs], expected), expected)

        plain = runs[0]
        for reference in (plain, exact):
            for name, network in reference.networks.items():
                parameters = list(network.parameters())
                for p, gradient in zip(parameters, used[name].split([p.numel() for p in parameters]), strict=True):
                    p.grad = gradient.view_as(p).to(p.dtype)
            reference.update()
        for name, network in objective.networks.items():
            parameters = (n.parameters() for n in (network, plain.networks[name], exact.networks[name]))
            for p, own, expected in zip(*parameters, strict=True):
                assert_close(p.detach(), own.detach(), expected.detach())

    # What the critic's loss is a difference of, since that may cancel.
    summed = 10 * torch.stack([s.abs().mean() for s in scores]).unflatten(0, (steps, 2)).sum(1)
    for name in ("kl", "rec", "critic"):
        expected = torch.stack([exact_terms[name] for _, _, exact_terms in losses])
        own = [torch.stack([runs_terms[i][name] for _, runs_terms, _ in losses]) for i in range(len(orders))]
        found = torch.stack([terms[name] for terms, _, _ in losses])
        assert_close(found, worst(own, expected), expected, summed if name == "critic" else None)


@pytest.mark.parametrize("form", FORMS)
def test_float32_is_as_good_as_the_reference(form):
    compare_in_float32(form, 3, size=8)
