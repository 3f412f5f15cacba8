"""The VAE-WGAN's single backward pass against the textbook's three, in float64, and its options."""

import copy
import functools
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bench.measuring.closeness import relative_error
from fastvae.config import ModelConfig
from fastvae.lossnet import LossNetwork
from fastvae.objectives.vae_wgan import VaeWgan, VaeWganOptions, critic_form

MODEL = ModelConfig(image_size=16, width=2, latent=5)


class TinyLossNetwork(nn.Module):
    """Two random feature maps under the loss network's interface."""

    taps, channels = ("relu1_1", "relu2_1"), (4, 6)

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 6, 3, stride=2, padding=1)
        self.requires_grad_(False)

    def forward(self, images):
        first = self.conv1(images * 3).relu()
        return first, self.conv2(first).relu()

    def forward_pair(self, images, fakes):
        with torch.no_grad():
            features = self(images)
        return features, self(fakes)


def build(dtype=torch.float64, loss_network=TinyLossNetwork, model=MODEL, **options) -> VaeWgan:
    torch.manual_seed(3)
    objective = VaeWgan(VaeWganOptions(layers=("relu1_1", "relu2_1"), **options), model, loss_network())
    for network in [*objective.networks.values(), objective.loss_network]:
        network.to(dtype)
    objective.train()
    return objective


def batch(dtype=torch.float64):
    return torch.rand(6, 3, 16, 16, dtype=dtype) * 2 - 1, torch.randn(6, 5, dtype=dtype)


def textbook_losses(objective: VaeWgan, images, noise):
    """Equations 5 to 8, written out again."""
    mean, log_variance = objective.encoder(images)
    fakes = objective.decoder(mean + (log_variance / 2).exp() * noise)
    kl = -0.5 * (1 + log_variance - mean**2 - log_variance.exp()).sum(1).mean()
    rec = 0
    for real, fake in zip(objective.loss_network(images), objective.loss_network(fakes), strict=True):
        _, c, h, w = real.shape
        rec = rec + 100 / c**2 * ((real - fake) ** 2).flatten(1).sum(1).mean() / (2 * c * w * h)
    return kl, rec, objective.loss_network(images)[0], objective.loss_network(fakes)[0]


def gradients(objective: VaeWgan, name: str):
    return [p.grad for p in objective.networks[name].parameters()]


def test_one_backward_equals_three_textbook_passes():
    images, noise = batch()
    ours = build()
    ours.loss(images, noise)[0].backward()

    # Algorithm 1 updates each network by a gradient of its own; here each is a pass of its own.
    encoder, decoder, critic = (copy.deepcopy(build()) for _ in range(3))
    for objective, name in ((encoder, "encoder"), (decoder, "decoder")):
        kl, rec, _, fake = textbook_losses(objective, images, noise)
        (1.0 * kl + 0.5 * rec - 10 * objective.critic(fake).mean()).backward()
        for p, q in zip(gradients(ours, name), gradients(objective, name), strict=True):
            assert torch.allclose(p, q, rtol=1e-9, atol=1e-12)
    _, _, real, fake = textbook_losses(critic, images, noise)
    (-10 * (critic.critic(real).mean() - critic.critic(fake.detach()).mean())).backward()
    for p, q in zip(gradients(ours, "critic"), gradients(critic, "critic"), strict=True):
        assert torch.allclose(p, q, rtol=1e-9, atol=1e-12)


def test_mse_labels_equal_two_textbook_passes():
    images, noise = batch()
    ours, vae, critic = build(adversarial="mse"), build(), build()
    ours.loss(images, noise)[0].backward()
    kl, rec, _, fake = textbook_losses(vae, images, noise)
    (kl + 0.5 * rec + (vae.critic(fake) - 10).square().mean()).backward()
    for name in ("encoder", "decoder"):
        for p, q in zip(gradients(ours, name), gradients(vae, name), strict=True):
            assert torch.allclose(p, q, rtol=1e-9, atol=1e-12)
    _, _, real, fake = textbook_losses(critic, images, noise)
    loss = (critic.critic(real) - 10).square().mean() + (critic.critic(fake.detach()) + 10).square().mean()
    loss.backward()
    for p, q in zip(gradients(ours, "critic"), gradients(critic, "critic"), strict=True):
        assert torch.allclose(p, q, rtol=1e-9, atol=1e-12)


def test_reported_terms():
    images, noise = batch()
    objective = build()
    _, terms = objective.loss(images, noise)
    kl, rec, real, fake = textbook_losses(build(), images, noise)
    fresh = build()
    critic = -10 * (fresh.critic(real).mean() - fresh.critic(fake).mean())
    for name, expected in (("kl", kl), ("rec", rec), ("critic", critic)):
        assert terms[name].item() == pytest.approx(expected.item(), rel=1e-9)


def test_critic_first_meets_the_updated_critic():
    images, noise = batch()
    objective = build(order="critic_first")
    critic_pass, vae_pass = objective.passes(0)
    updates = objective.updates(1e-2)
    critic_pass.loss(images, noise)[0].backward()
    assert all(p.grad is None for n in ("encoder", "decoder") for p in objective.networks[n].parameters())
    updates["critic"].apply({})
    reference = copy.deepcopy(objective)
    vae_pass.loss(images, noise)[0].backward()
    assert all(p.grad is None for p in objective.critic.parameters())
    kl, rec, _, fake = textbook_losses(reference, images, noise)
    (kl + 0.5 * rec - 10 * reference.critic(fake).mean()).backward()
    for name in ("encoder", "decoder"):
        for p, q in zip(gradients(objective, name), gradients(reference, name), strict=True):
            assert torch.allclose(p, q, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("clipped", ["weights", "weights_except_norm", "gradients", "nothing"])
def test_what_is_clipped(clipped):
    images, noise = batch()
    objective = build(clipped=clipped, critic_optimizer="rmsprop", critic_lr=1e-1)
    objective.loss(images, noise)[0].backward()
    objective.updates(1e-3)["critic"].apply({})
    norms = [p for m in objective.critic.modules() if isinstance(m, nn.BatchNorm2d) for p in m.parameters()]
    others = [p for p in objective.critic.parameters() if all(p is not q for q in norms)]
    assert norms and others

    def largest(params):
        return max(p.abs().max().item() for p in params)

    assert (largest(norms) <= 0.01) == (clipped == "weights")
    assert (largest(others) <= 0.01) == clipped.startswith("weights")


def test_gradients_are_clipped_before_the_update():
    objective = build(clipped="gradients", clip=0.125)
    update = objective.updates(1e-3)["critic"]
    seen = []
    update.optimizer.register_step_pre_hook(
        lambda *_: seen.append(max(p.grad.abs().max().item() for p in objective.critic.parameters()))
    )
    for p in objective.critic.parameters():
        p.grad = torch.ones_like(p)
    update.apply({})
    assert seen == [0.125]


def test_forms_and_overrides():
    paper = critic_form(VaeWganOptions(critic="paper"))
    assert (paper.label_scale, paper.clip, paper.clipped, paper.optimizer, paper.lr) == (
        10,
        0.01,
        "weights",
        "adam",
        None,
    )
    changed = critic_form(VaeWganOptions(critic="paper", label_scale=3.0, critic_optimizer="rmsprop"))
    assert (changed.label_scale, changed.lr) == (3.0, 5e-5)


def test_balance_is_the_ratio_of_the_two_gradients_at_the_images():
    images, noise = batch()
    objective = build()
    ratio = objective.balance(images, noise)["gan_to_rec"].item()
    twin = build(label_scale=20.0)
    assert twin.balance(images, noise)["gan_to_rec"].item() == pytest.approx(2 * ratio, rel=1e-4)
    mean, log_variance = twin.encoder(images)
    fakes = twin.decoder(mean + (log_variance / 2).exp() * noise).detach().requires_grad_()
    (g,) = torch.autograd.grad(10 * twin.critic(twin.loss_network(fakes)[0]).mean(), fakes)
    rec = sum(
        100 / f.shape[1] ** 2 * F.mse_loss(f, t) / 2
        for f, t in zip(twin.loss_network(fakes), twin.loss_network(images), strict=True)
    )
    (r,) = torch.autograd.grad(0.5 * rec, fakes)
    assert ratio == pytest.approx((g.norm() / r.norm()).item(), rel=1e-4)
    assert all(p.grad is None for n in objective.networks.values() for p in n.parameters())


@pytest.mark.parametrize(
    "options",
    [
        {},
        *(
            pytest.param(o, marks=pytest.mark.slow)
            for o in ({"adversarial": "mse"}, {"order": "critic_first"}, {"critic": "held"})
        ),
    ],
    ids=str,
)
def test_every_pass_is_one_graph_with_the_eager_gradients(options):
    """Traced by Dynamo and differentiated by AOTAutograd without a break; the compiler itself is tried elsewhere."""
    images, noise = batch()
    real = functools.partial(LossNetwork, ("relu1_1", "relu2_1"))
    model = replace(MODEL, stages=1) if options else MODEL  # what the options change is the same for any number
    ours, reference = (build(loss_network=real, model=model, **options) for _ in range(2))
    for part, expected_part in zip(ours.passes(0), reference.passes(0), strict=True):
        total, terms = torch.compile(part.loss, fullgraph=True, backend="aot_eager")(images, noise)
        expected, _ = expected_part.loss(images, noise)
        assert total.item() == pytest.approx(expected.item(), rel=1e-9)
        assert all(not t.requires_grad for t in terms.values())
        total.backward()
        expected.backward()
        for name in ours.networks:
            for p, q in zip(gradients(ours, name), gradients(reference, name), strict=True):
                assert (p is None) == (q is None)
                assert p is None or relative_error(p, q) < 1e-9
