"""`critic="held"`: the label scale follows a measured share, and is the weight of the VAE's adversarial loss alone."""

import itertools
import math

import pytest
import torch

from fastvae.config import ModelConfig
from fastvae.errors import UsageError
from fastvae.lossnet.network import LossNetwork
from fastvae.objectives.held_share import steer_
from fastvae.objectives.multi_view import MultiView, MultiViewOptions
from fastvae.objectives.vae_wgan import VaeWganOptions
from tests.objectives.test_vae_wgan import batch, build, gradients


@pytest.mark.parametrize("per_unit", [1e-4, 0.025, 3.0])
def test_a_share_that_follows_the_scale_is_brought_to_the_target(per_unit):
    scale, seen = torch.tensor(10.0), []
    for _ in range(30):
        seen.append(per_unit * scale.item())
        steer_(scale, torch.tensor(seen[-1]), 0.25, 10.0)
    assert seen[-1] == pytest.approx(0.25, rel=1e-3)
    changes = [math.log2(b / a) for a, b in itertools.pairwise(seen)]
    assert all(abs(c) <= 1 + 1e-5 for c in changes)
    # From one side: no step goes past the target.
    assert all((s < 0.25 * (1 + 1e-5)) == (seen[0] < 0.25) or s == pytest.approx(0.25, rel=1e-5) for s in seen)


@pytest.mark.parametrize(
    ("measured", "expected"),
    [(0.25, 10.0), (1.0, 5.0), (0.16, 12.5), (0.0, 20.0), (math.inf, 5.0), (math.nan, 10.0), (1e-9, 20.0)],
)
def test_one_adjustment_by_hand(measured, expected):
    scale = torch.tensor(10.0)
    steer_(scale, torch.tensor(measured), 0.25, 10.0)
    assert scale.item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("measured", "bound"), [(0.0, 1e4), (math.inf, 1e-2)])
def test_the_scale_stays_in_its_range(measured, bound):
    scale = torch.tensor(10.0)
    for _ in range(40):
        steer_(scale, torch.tensor(measured), 0.25, 10.0)
    assert scale.item() == pytest.approx(bound)


@pytest.mark.parametrize("order", ["together", "critic_first"])
def test_the_scale_is_the_vaes_alone(order):
    """At the first scale it is `paper`; at three times that, only the VAE's adversarial gradient is three times it."""
    images, noise = batch()
    found = {}
    for scale in (10.0, 30.0):
        held = build(critic="held", order=order)
        held.label_scale.fill_(scale)
        for part in held.passes(0):
            part.loss(images, noise)[0].backward()
        found[scale] = {name: gradients(held, name) for name in held.networks}
    paper, stronger = build(critic="paper", order=order), build(critic="paper", order=order, label_scale=30.0)
    for twin in (paper, stronger):
        for part in twin.passes(0):
            part.loss(images, noise)[0].backward()
    for twin, scale in ((paper, 10.0), (stronger, 30.0)):
        for name in ("encoder", "decoder"):
            for p, q in zip(found[scale][name], gradients(twin, name), strict=True):
                assert torch.allclose(p, q, rtol=1e-9, atol=1e-12)
    for scale in found:
        for p, q in zip(found[scale]["critic"], gradients(paper, "critic"), strict=True):
            assert torch.allclose(p, q, rtol=1e-9, atol=1e-12)


def test_it_steers_itself_by_what_it_measures():
    images, noise = batch()
    held = build(critic="held", critic_share=1.0)
    number = held.steered()["label_scale"]
    for _ in range(40):
        measured = held.balance(images, noise)
        assert measured["label_scale"].item() == number.item()
        held.steer(measured)
    assert held.balance(images, noise)["gan_to_rec"].item() == pytest.approx(1.0, rel=1e-3)
    assert held.label_scale is number and measured["label_scale"] is not number


def test_each_view_has_a_scale_of_its_own():
    layers = ("relu1_1", "relu2_1")
    options = MultiViewOptions(critic="held", layers=layers)
    objective = MultiView(options, ModelConfig(16, width=2, latent=3), LossNetwork(layers))
    objective.steer({"relu1_1_gan_to_rec": torch.tensor(1.0), "relu2_1_gan_to_rec": torch.tensor(0.0625)})
    assert {n: t.item() for n, t in objective.steered().items()} == {
        "relu1_1.label_scale": 5.0,
        "relu2_1.label_scale": 20.0,
    }


def test_other_forms_have_nothing_to_steer():
    for critic in ("paper", "balanced"):
        objective = build(critic=critic)
        objective.steer({"gan_to_rec": torch.tensor(1.0)})
        assert objective.steered() == {} and objective.label_scale is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"critic_share": 0.0}, "critic-share must be more than 0; got 0.0"),
        ({"critic_share": math.inf}, "critic-share must be more than 0, and a finite number; got inf"),
        ({"critic_share": math.nan}, "critic-share must be more than 0"),
        ({"label_scale": 0.0}, "beta and label-scale must be more than 0; got 0.5 and 0.0"),
        ({"beta": 0.0}, "beta and label-scale must be more than 0; got 0.0 and"),
        ({"adversarial": "mse"}, "adversarial must be wasserstein; got mse"),
        ({"critic": "paper", "critic_share": 0.5}, "critic-share is for critic held; got 0.5 and critic paper"),
    ],
)
def test_options_that_cannot_be_held_are_refused(options, message):
    with pytest.raises(UsageError, match=message):
        VaeWganOptions(**{"critic": "held", **options})


def test_a_whole_number_as_label_scale_is_steered():
    objective = build(critic="held", label_scale=20)
    objective.steer({"gan_to_rec": torch.tensor(0.1)})
    assert objective.label_scale.dtype == torch.float32 and objective.label_scale > 20
