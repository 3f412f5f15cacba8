"""The two VAEs without a critic."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from fastvae.config import ModelConfig
from fastvae.objectives import OBJECTIVES
from fastvae.objectives.dfc_vae import DfcVae, DfcVaeOptions
from fastvae.objectives.plain_vae import PlainVae, PlainVaeOptions
from fastvae.pictures import to_images
from fastvae.recipes import RECIPES
from tests.conftest import blobs
from tests.objectives.test_vae_wgan import MODEL, TinyLossNetwork, batch, textbook_losses


def in_float64(objective):
    for network in [*objective.networks.values(), objective.loss_network]:
        if network is not None:
            network.double()
    objective.train()
    return objective


def test_dfc_vae_weighs_its_layers():
    images, noise = batch()
    options = DfcVaeOptions(alpha=2.0, beta=3.0, layers=("relu2_1",), layer_weights="unit")
    objective = in_float64(DfcVae(options, MODEL, TinyLossNetwork()))
    total, terms = objective.loss(images, noise)
    mean, log_variance = objective.encoder(images)
    fakes = objective.decoder(mean + (log_variance / 2).exp() * noise)
    real, fake = objective.loss_network(images)[1], objective.loss_network(fakes)[1]
    assert torch.allclose(terms["rec"], (real - fake).square().mean() / 2)
    assert torch.allclose(total, 2 * terms["kl"] + 3 * terms["rec"])


@pytest.mark.parametrize("layers", [("relu1_1", "relu2_1"), ("relu2_1", "relu1_1")])
def test_equal_weights_go_with_their_layers_in_any_order(layers):
    images, noise = batch()
    objective = in_float64(DfcVae(DfcVaeOptions(layers=layers, layer_weights="equal"), MODEL, TinyLossNetwork()))
    mean, log_variance = objective.encoder(images)
    fakes = objective.decoder(mean + (log_variance / 2).exp() * noise)
    network = objective.loss_network
    pairs = zip(network(images), network(fakes), strict=True)
    first, second = (100 / real.shape[1] ** 2 * (real - fake).square().mean() / 2 for real, fake in pairs)
    # Of 435 nats on CelebA relu1_1 has 20.8 and relu2_1 has 134.
    expected = 435.3 / 2 * (first / 20.8 + second / 134)
    assert torch.allclose(objective.loss(images, noise)[1]["rec"], expected, rtol=1e-3)


def test_dfc_vae_with_the_papers_weights_is_equation_6():
    images, noise = batch()
    options = DfcVaeOptions(layers=("relu1_1", "relu2_1"), layer_weights="paper")
    objective = in_float64(DfcVae(options, MODEL, TinyLossNetwork()))
    kl, rec, _, _ = textbook_losses(objective, images, noise)
    _, terms = objective.loss(images, noise)
    assert torch.allclose(terms["rec"], rec) and torch.allclose(terms["kl"], kl)


@pytest.mark.parametrize("name", ["celeba64-dfc-123", "cifar10-dfc-123", "celeba64-dfc-345", "cifar10-dfc-345"])
def test_the_recipes_have_the_balance_of_the_authors_code(name):
    """Torch7: the KL summed over z and 40 images, 0.5 nn.MSECriterion for each layer, a mean over all it is given."""
    options = replace(RECIPES[name]().objective, layers=("relu1_1", "relu2_1"))
    torch.manual_seed(0)
    images, noise = torch.rand(40, 3, 16, 16, dtype=torch.float64) * 2 - 1, torch.randn(40, 5, dtype=torch.float64)
    objective = in_float64(DfcVae(options, MODEL, TinyLossNetwork()))
    total, _ = objective.loss(images, noise)
    mean, log_variance = objective.encoder(images)
    fakes = objective.decoder(mean + (log_variance / 2).exp() * noise)
    theirs = 0.5 * (mean.square() + log_variance.exp() - log_variance - 1).sum()
    for real, fake in zip(objective.loss_network(images), objective.loss_network(fakes), strict=True):
        theirs = theirs + 0.5 * F.mse_loss(fake, real)
    assert torch.allclose(40 * total, theirs)


@pytest.mark.parametrize("name", ["dfc_vae", "vae_wgan", "plain_vae"])
def test_images_are_grey_at_first_where_the_loss_does_not_see_fine_colour(name):
    options, objective = OBJECTIVES[name]
    torch.manual_seed(0)
    objective = objective(options(), MODEL, TinyLossNetwork())
    images = objective.sample(torch.randn(4, 5))
    bias = objective.decoder.to_image.bias.view(3, 1, 1)
    colours = torch.atanh(images) - bias
    spread = (colours - colours.mean(1, keepdim=True)).abs().max() / colours.std()
    assert (spread < 1e-4) == (name != "plain_vae")
    assert colours.std() > 0.01  # a picture, not a plain area


def test_plain_vae_needs_no_loss_network_and_learns():
    objective = PlainVae(PlainVaeOptions(), ModelConfig(image_size=16, width=4, latent=5))
    objective.train()
    images = to_images(torch.from_numpy(blobs(16, 16)))
    update = objective.updates(1e-2)["vae"]
    losses = []
    for _ in range(40):
        total, terms = objective.loss(images, torch.randn(16, 5))
        total.backward()
        update.apply({})
        losses.append(terms["reconstruction"].item())
    assert losses[-1] < losses[0] / 2
