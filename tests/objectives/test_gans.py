"""DCGAN, WGAN and LSGAN against their equations written out, in float64, and WGAN's rounds against counting."""

import itertools

import pytest
import torch

from fastvae.config import ModelConfig
from fastvae.objectives.dcgan import Dcgan, DcganOptions
from fastvae.objectives.lsgan import Lsgan, LsganOptions
from fastvae.objectives.wgan import Wgan, WganOptions, generator_moves

MODEL = ModelConfig(image_size=16, width=2, latent=5, stages=4)


def build(objective_class, options):
    objective = objective_class(options, MODEL)
    for network in objective.networks.values():
        network.double()
    objective.train()
    return objective


def batch(objective, count=6):
    noise = torch.randn(count, objective.noise_size, dtype=torch.float64)
    return torch.rand(count, 3, 16, 16, dtype=torch.float64) * 2 - 1, noise


def scores(objective, images, noise):
    """D of the real and of the generated images, each batch by itself."""
    fakes = objective.generator(noise)
    return objective.discriminator(images), objective.discriminator(fakes), fakes


def gradient_of(loss, network):
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(network.parameters()))])


def test_dcgan_descends_the_cross_entropy():
    objective = build(Dcgan, DcganOptions())
    images, noise = batch(objective)
    real, fake, _ = scores(objective, images, noise)
    real, fake = torch.sigmoid(real), torch.sigmoid(fake)
    first, _ = objective.discriminator_loss(images, noise)
    second, _ = objective.generator_loss(images, noise)
    by_hand = -real.log().mean() - (1 - fake).log().mean()
    assert torch.allclose(first, by_hand) and torch.allclose(second, -fake.log().mean())
    found, wanted = (gradient_of(loss, objective.discriminator) for loss in (first, by_hand))
    assert torch.allclose(found, wanted, atol=1e-12)


def test_wgan_descends_the_distance_and_draws_anew_for_the_generator():
    objective = build(Wgan, WganOptions())
    images, noise = batch(objective)
    real, fake, _ = scores(objective, images, noise[:, :5])
    _, other, _ = scores(objective, images, noise[:, 5:])
    assert torch.allclose(objective.discriminator_loss(images, noise)[0], fake.mean() - real.mean())
    assert torch.allclose(objective.generator_loss(images, noise)[0], -other.mean())


def test_wgan_clips_the_critic_alone():
    objective = build(Wgan, WganOptions(clip=0.003))
    images, noise = batch(objective)
    updates = objective.updates(5e-5)
    for loss, name in ((objective.discriminator_loss, "discriminator"), (objective.generator_loss, "generator")):
        loss(images, noise)[0].backward()
        updates[name].apply({})
    largest = {n: max(p.abs().max().item() for p in net.parameters()) for n, net in objective.networks.items()}
    assert largest["discriminator"] == pytest.approx(0.003) and largest["generator"] > 0.02


def test_lsgan_descends_the_hinge():
    objective = build(Lsgan, LsganOptions(margin=0.01, gamma=0.5))
    with torch.no_grad():  # a loss function that is positive for some and zero for others
        objective.discriminator.head.weight *= 50
    images, noise = batch(objective)
    real, fake, fakes = scores(objective, images, noise)
    assert 0 < (real > 0).sum() < len(real) and 0 < (fake > 0).sum() < len(fake)
    real, fake = real.clamp_min(0), fake.clamp_min(0)
    distance = torch.stack([(x - y).abs().sum() for x, y in zip(images, fakes, strict=True)])
    hinge = 0.01 * distance + real - fake
    assert 0 < (hinge > 0).sum() < len(hinge)
    by_hand = 0.5 * real.mean() + hinge.clamp_min(0).mean()
    loss, terms = objective.discriminator_loss(images, noise)
    assert torch.allclose(loss, by_hand) and torch.allclose(terms["fake"], fake.mean())
    assert torch.allclose(objective.generator_loss(images, noise)[0], fake.mean())
    found = gradient_of(loss, objective.discriminator)
    by_hand_with_fixed_images = (
        0.5 * real.mean()
        + (0.01 * distance.detach() + real - objective.discriminator(fakes.detach()).relu()).relu().mean()
    )
    assert torch.allclose(found, gradient_of(by_hand_with_fixed_images, objective.discriminator), atol=1e-12)


@pytest.mark.parametrize(
    ("objective_class", "options", "textbook"),
    [
        (Dcgan, DcganOptions(), lambda d: torch.nn.functional.softplus(-d).mean()),
        (Wgan, WganOptions(), lambda d: -d.mean()),
        (Lsgan, LsganOptions(), lambda d: d.clamp_min(0).mean()),
    ],
)
def test_the_generator_descends_the_textbooks_gradient(objective_class, options, textbook):
    objective = build(objective_class, options)
    with torch.no_grad():
        objective.discriminator.head.weight *= 50
    images, noise = batch(objective)
    wanted = gradient_of(textbook(scores(objective, images, noise[:, -5:])[1]), objective.generator)
    found = gradient_of(objective.generator_loss(images, noise)[0], objective.generator)
    assert wanted.norm() > 0 and torch.allclose(found, wanted, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("objective_class", "options"), [(Dcgan, DcganOptions()), (Wgan, WganOptions()), (Lsgan, LsganOptions())]
)
def test_each_pass_leaves_the_other_network_alone(objective_class, options):
    objective = build(objective_class, options)
    images, noise = batch(objective)
    for loss, moved, fixed in (
        (objective.discriminator_loss, objective.discriminator, objective.generator),
        (objective.generator_loss, objective.generator, objective.discriminator),
    ):
        loss(images, noise)[0].backward()
        assert all(p.grad is None for p in fixed.parameters())
        assert any(p.grad.abs().sum() > 0 for p in moved.parameters())
        for p in moved.parameters():
            p.grad = None


@pytest.mark.parametrize(
    "options",
    [
        WganOptions(),
        WganOptions(critic_steps=2, warmup_critic_steps=7, warmup_generator_steps=3, warmup_every=4),
        WganOptions(warmup_generator_steps=0),
    ],
)
def test_the_generator_moves_as_counting_says(options):
    def counted():
        for generator_step in itertools.count():
            long = generator_step < options.warmup_generator_steps or generator_step % options.warmup_every == 0
            rounds = options.warmup_critic_steps if long else options.critic_steps
            yield from (step + 1 == rounds for step in range(rounds))

    assert all(generator_moves(step, options) == moves for step, moves in zip(range(12_000), counted(), strict=False))


def test_wgans_passes_follow_the_rounds():
    objective = build(
        Wgan, WganOptions(critic_steps=2, warmup_generator_steps=0, warmup_every=10**6, warmup_critic_steps=1)
    )
    named = [[pass_.name for pass_ in objective.passes(step)] for step in range(4)]
    assert named == [
        ["discriminator", "generator"],
        ["discriminator"],
        ["discriminator", "generator"],
        ["discriminator"],
    ]
