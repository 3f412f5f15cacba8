"""The VAE/GAN's three gradient paths against three textbook passes, in float64, and its gating."""

import pytest
import torch
import torch.nn.functional as F

from fastvae.config import ModelConfig
from fastvae.errors import UsageError
from fastvae.objectives.base import Update
from fastvae.objectives.vae_gan import VaeGan, VaeGanOptions, gates, similarity
from fastvae.optim import ClippedAdam, ClippedRMSprop

MODEL = ModelConfig(image_size=16, width=2, latent=5, stages=4)
EPSILON = 1e-3


@pytest.fixture
def objective():
    objective = VaeGan(VaeGanOptions(gamma=0.3, feature_layer=3, real_weight=0.7), MODEL)
    for network in objective.networks.values():
        network.double()
    objective.train()
    return objective


def gradients(loss, network):
    return torch.autograd.grad(loss, list(network.parameters()), allow_unused=True, retain_graph=True)


def test_every_network_gets_the_gradient_of_its_own_loss(objective):
    images = torch.rand(6, 3, 16, 16, dtype=torch.float64) * 2 - 1
    noise = torch.randn(6, 10, dtype=torch.float64)
    total, terms = objective.loss(images, noise)
    total.backward()

    mean, log_variance = objective.encoder(images)
    z = mean + (log_variance / 2).exp() * noise[:, :5]
    kl = -0.5 * (1 + log_variance - mean**2 - log_variance.exp()).sum(1).mean()
    first, second, third, _ = objective.discriminator.convs
    # Behind the second convolution images and reconstructions are normalised as one batch.
    both = second(F.leaky_relu(first(torch.cat([images, objective.decoder(z)])), 0.2))
    maps, fake_maps = third(F.leaky_relu(objective.discriminator.norms[0](both), 0.2)).chunk(2)
    like = ((fake_maps - maps.detach()) ** 2).flatten(1).sum(1).mean() / 2
    fakes = objective.decoder(noise[:, 5:])
    real, fake = objective.discriminator(torch.cat([images, fakes])).sigmoid().chunk(2)
    discriminator_loss = -0.7 * (real + EPSILON).log().mean() - 0.3 * (1 - fake + EPSILON).log().mean()
    decoder_loss = 0.3 * like - discriminator_loss / 0.3

    assert torch.allclose(terms["similarity"], like) and torch.allclose(terms["kl"], kl)
    for name, loss in (("encoder", kl + like), ("decoder", decoder_loss), ("discriminator", discriminator_loss)):
        network = objective.networks[name]
        for p, wanted in zip(network.parameters(), gradients(loss, network), strict=True):
            assert torch.allclose(p.grad, torch.zeros_like(p) if wanted is None else wanted, rtol=1e-6, atol=1e-10), (
                name
            )


@pytest.mark.parametrize("layer", [1, 2, 3, 4])
def test_the_output_of_any_convolution_can_be_compared(objective, layer):
    maps = objective.discriminator(torch.rand(6, 3, 16, 16, dtype=torch.float64), layer=layer)
    assert maps.shape[1:] == (4 * 2 ** (layer - 1), 16 >> layer, 16 >> layer)


def test_the_likeness_sees_contrast(objective):
    """Which it would not, were images and reconstructions each normalised by statistics of their own."""
    images = torch.rand(6, 3, 16, 16, dtype=torch.float64) - 0.5
    objective.decoder.forward = lambda z: 2 * images
    apart = similarity(*(objective.discriminator(x, layer=3) for x in (images, 2 * images)))
    assert objective.likeness(images, torch.zeros(6, 5, dtype=torch.float64)) > 5 * apart


@pytest.mark.parametrize(
    ("real", "fake", "moves"),
    [
        (0.68, 0.68, (1, 1)),
        (0.2, 0.68, (1, 0)),  # the discriminator is too good at the real images: it rests
        (0.68, 0.2, (1, 0)),
        (1.2, 0.68, (0, 1)),  # it is too bad: the decoder rests
        (0.68, 1.2, (0, 1)),
        (0.2, 1.2, (1, 1)),  # both would rest, so neither does
    ],
)
def test_gates(real, fake, moves):
    assert tuple(g.item() for g in gates(torch.tensor(real), torch.tensor(fake), VaeGanOptions())) == moves


@pytest.mark.parametrize("clip_gradients", [None, 0.5])
@pytest.mark.parametrize("optimizer", [ClippedAdam, ClippedRMSprop])
def test_a_closed_gate_leaves_weights_and_optimiser_as_they_are(optimizer, clip_gradients):
    def states(optimizer):
        return [{k: v.clone() for k, v in s.items()} for s in optimizer.state.values()]

    weights, twins = (torch.nn.Parameter(torch.ones(3)) for _ in range(2))
    update = Update(optimizer([weights], lr=0.1), clip_gradients, gate="moves")
    ungated = Update(optimizer([twins], lr=0.1), clip_gradients)
    for gate in (0.0, 1.0, 0.0, 1.0, 0.0):
        for p in (weights, twins):
            p.grad = torch.tensor([0.1, 1.0, 3.0])
        update.apply({"moves": torch.tensor(gate)})
        if gate:
            ungated.apply({})
        assert weights.grad is None and torch.equal(weights, twins)
    assert states(update.optimizer)[0].pop("step") == 2
    for found, expected in zip(states(update.optimizer), states(ungated.optimizer), strict=True):
        assert all(torch.equal(found[k], expected[k]) for k in expected)


@pytest.mark.parametrize(("image_size", "layer"), [(8, 1), (16, 2), (32, 3), (64, 3), (128, 4)])
def test_by_default_the_last_convolution_but_one_is_compared_or_the_third(image_size, layer):
    objective = VaeGan(VaeGanOptions(), ModelConfig(image_size=image_size, width=1, latent=2))
    assert objective.feature_layer == layer


@pytest.mark.parametrize("image_size", [32, 64])
def test_features_are_far_enough_apart_to_keep_a_code(image_size):
    """Of a convolution behind one that BN has not normalised they are within some 10 nats, and the KL goes to 0."""
    objective = VaeGan(VaeGanOptions(), ModelConfig(image_size=image_size))
    images, others = torch.rand(2, 8, 3, image_size, image_size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        maps = objective.discriminator(torch.cat([images, others]), layer=objective.feature_layer)
    assert similarity(*maps.chunk(2)) > 200


def test_options_are_checked():
    with pytest.raises(UsageError, match="feature-layer must be 1 or more; got 0"):
        VaeGanOptions(feature_layer=0)
    with pytest.raises(UsageError, match=r"feature-layer must be from 1 to 4, .* got 5"):
        VaeGan(VaeGanOptions(feature_layer=5), MODEL)
    with pytest.raises(UsageError, match="real-weight"):
        VaeGanOptions(real_weight=1.0)
