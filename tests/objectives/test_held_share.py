"""`critic="held"`: the critic's gradient is held to a share of the feature loss's, for the VAE alone."""

import itertools
import math

import pytest
import torch

from bench.measuring.closeness import relative_error
from fastvae.config import ModelConfig
from fastvae.errors import UsageError
from fastvae.lossnet.network import LossNetwork
from fastvae.objectives.held_share import HeldShare
from fastvae.objectives.multi_view import MultiView, MultiViewOptions
from fastvae.objectives.vae_wgan import VaeWganOptions
from tests.objectives.test_vae_wgan import batch, build, gradients


def measure(held: HeldShare, ratio: float, norm: float = 2.0, by_rec: float = 3.0) -> dict[str, torch.Tensor]:
    """What it measures where labels of s_0 have this |dL_GAN/dx'| / |d(beta L_rec)/dx'| and this |dL_GAN/dphi1|."""
    by_phi1 = torch.tensor([0.6, -0.8]) * norm
    return held.measured(by_phi1, torch.tensor(ratio * by_rec), torch.tensor(by_rec))


@pytest.mark.parametrize("per_unit", [0.003, 0.025, 3.0])
def test_a_share_that_follows_the_scale_is_brought_to_the_target(per_unit):
    held, shares = HeldShare(0.25, first=10.0), []
    scales = [held.label_scale.item()]
    for _ in range(30):
        measured = measure(held, 10 * per_unit)
        shares.append(measured["gan_to_rec"].item())
        held.steer_(measured)
        scales.append(held.label_scale.item())
    assert shares[-1] == pytest.approx(0.25, rel=1e-3)
    assert scales[-1] == pytest.approx(0.25 / per_unit, rel=1e-3)
    assert all(abs(math.log2(b / a)) <= 1 + 1e-5 for a, b in itertools.pairwise(scales))
    # From one side: no step goes past the target. And what is past it at first is weakened from the next step on.
    assert scales == sorted(scales, reverse=scales[0] > scales[-1])
    assert max(shares[1:]) <= 0.25 * (1 + 1e-5)


@pytest.mark.parametrize(
    ("ratio", "expected"),
    [(0.25, 10.0), (1.0, 5.0), (0.16, 12.5), (0.0, 20.0), (math.inf, 5.0), (math.nan, 10.0), (1e-9, 20.0)],
)
def test_one_adjustment_by_hand(ratio, expected):
    held = HeldShare(0.25, first=10.0)
    held.steer_(measure(held, ratio))
    assert held.label_scale.item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("ratio", "bound"), [(0.0, 100.0), (math.inf, 1e-2)])
def test_the_scale_stays_in_its_range(ratio, bound):
    held = HeldShare(0.25, first=10.0)
    for _ in range(40):
        held.steer_(measure(held, ratio))
    assert held.label_scale.item() == pytest.approx(bound)


def test_no_gradient_is_larger_than_the_limit_and_a_small_one_is_not_raised_to_it():
    held = HeldShare(0.25, first=10.0)
    # With labels of s_0 |dL_GAN/dphi1| is 2 and its share 1: for a share of 0.25 it may be 0.5.
    held.steer_(measure(held, 1.0))
    assert held.gan_limit.item() == pytest.approx(0.5)
    assert held.label_scale.item() == pytest.approx(5.0)
    for norm, kept in [(0.01, 0.5), (0.9, 0.5), (1.0, 0.5), (5.0, 0.1), (1e6, 5e-7)]:
        x = torch.zeros(2, requires_grad=True)
        g = torch.tensor([0.6, -0.8]) * norm
        held.hold(x).backward(g)
        assert torch.allclose(x.grad, kept * g, rtol=1e-5)
    x = torch.zeros(2, requires_grad=True)
    held.hold(x).backward(torch.zeros(2))
    assert torch.equal(x.grad, torch.zeros(2))


def test_what_it_measures_is_what_its_gradient_does():
    """r and the label scale of a measurement count the limit of the measurement before."""
    held = HeldShare(0.25, first=10.0)
    held.steer_(measure(held, 1.0))
    free = measure(held, 0.4, norm=0.8)
    assert free["gan_to_rec"].item() == pytest.approx(0.2) and free["label_scale"].item() == pytest.approx(5.0)
    held_back = measure(held, 8.0, norm=20.0)
    # Kept to 0.5 of 20, and the ratio with it.
    assert held_back["gan_to_rec"].item() == pytest.approx(8 * 0.5 / 20)
    assert held_back["label_scale"].item() == pytest.approx(10 * 0.5 / 20)
    held.steer_(held_back)
    assert held.label_scale.item() == pytest.approx(2.5)  # s itself has a ratio of 4, 16 times too much; at most halved
    assert held.gan_limit.item() == pytest.approx(20 * 0.25 / 8)


@pytest.mark.parametrize("ratio", [0.0, math.inf, math.nan])
def test_a_measurement_that_gives_no_limit_leaves_the_one_before(ratio):
    held = HeldShare(0.25, first=10.0)
    held.steer_(measure(held, 1.0))
    measured = measure(held, ratio)
    held.steer_(measured)
    assert measured["gan_limit"].item() == held.gan_limit.item() == pytest.approx(0.5)


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_held_gradient_leaves_the_value_alone_and_reads_new_numbers(compiled, dtype):
    held = HeldShare(0.25, first=10.0)

    def through(x):
        return held.hold(x).clone()

    if compiled:
        through = torch.compile(through, fullgraph=True, backend="aot_eager")
    x = torch.tensor([0.1, -0.0, math.inf, math.nan], dtype=dtype, requires_grad=True)
    g = torch.tensor([3.0, 0.0, -4.0, 0.0], dtype=dtype)
    for scale, limit, factor in [(20.0, 1e9, 2.0), (40.0, 1e9, 4.0), (40.0, 2.5, 0.5)]:
        held.label_scale.fill_(scale)
        held.gan_limit.fill_(limit)
        x.grad = None
        y = through(x)
        y.backward(g)
        assert torch.equal(y.detach().view(torch.uint8), x.detach().view(torch.uint8))  # to the bit
        assert torch.equal(x.grad, factor * g)
    assert held.hold(x).data_ptr() == x.data_ptr()


@pytest.mark.gpu
def test_on_a_gpu_a_captured_backward_pass_reads_new_numbers():
    held = HeldShare(0.25, first=10.0)
    held.to(torch.device("cuda"))
    x = torch.ones(4, device="cuda", requires_grad=True)
    g = torch.tensor([3.0, 0.0, -4.0, 0.0], device="cuda")
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        (found,) = torch.autograd.grad(held.hold(x).clone(), x, g)
    for scale, limit, factor in [(20.0, 1e9, 2.0), (40.0, 1e9, 4.0), (40.0, 2.5, 0.5)]:
        held.label_scale.fill_(scale)
        held.gan_limit.fill_(limit)
        graph.replay()
        assert torch.equal(found, factor * g)


@pytest.mark.parametrize("order", ["together", "critic_first"])
def test_the_scale_is_the_vaes_alone(order):
    """At the first scale it is `paper`; at three times that, only the VAE's adversarial gradient is three times it."""
    images, noise = batch()
    found = {}
    for scale in (10.0, 30.0):
        held = build(critic="held", order=order)
        held.held.label_scale.fill_(scale)
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


@pytest.mark.parametrize("order", ["together", "critic_first"])
def test_the_limit_weakens_the_vaes_adversarial_gradient_and_no_other(order):
    images, noise = batch()
    found = {}
    for limit in (1e9, 1e-30):
        objective = build(critic="held", order=order)
        objective.held.gan_limit.fill_(limit)
        for part in objective.passes(0):
            part.loss(images, noise)[0].backward()
        found[limit] = {name: gradients(objective, name) for name in objective.networks}
    without = build(critic="paper", order=order, label_scale=0.0)
    for part in without.passes(0):
        part.loss(images, noise)[0].backward()
    for name in ("encoder", "decoder"):
        for p, q in zip(found[1e-30][name], gradients(without, name), strict=True):
            assert torch.allclose(p, q, rtol=1e-9, atol=1e-12)
    for p, q in zip(found[1e9]["critic"], found[1e-30]["critic"], strict=True):
        assert torch.equal(p, q)


@pytest.mark.parametrize("order", ["together", "critic_first"])
def test_a_step_limits_the_gradient_that_a_measurement_has_seen(order):
    images, noise = batch()
    objective = build(critic="held", order=order)
    measured = objective.balance(images, noise)
    norm = measured["gan_limit"] * measured["gan_to_rec"] / 0.25
    objective.held.gan_limit.copy_(norm / 4)
    found = {}
    for name, each in [("held", objective)] + [
        (scale, build(critic="paper", order=order, label_scale=scale)) for scale in (2.5, 2.51)
    ]:
        each.passes(0)[-1].loss(images, noise)[0].backward()  # of two passes the VAE's, without the critic's update
        found[name] = torch.cat([g.flatten() for n in ("encoder", "decoder") for g in gradients(each, n)])
    assert relative_error(found["held"], found[2.5]) < 0.01 * relative_error(found[2.51], found[2.5])


def test_it_steers_itself_by_what_it_measures():
    images, noise = batch()
    objective = build(critic="held", critic_share=1.0, label_scale=1.0)
    ratio = objective.balance(images, noise)["gan_to_rec"].item()
    # Far from its range's end, so that the label scale has a way to go.
    objective = build(critic="held", critic_share=ratio / 3, label_scale=1.0)
    numbers = objective.steered()
    for _ in range(40):
        measured = objective.balance(images, noise)
        objective.steer(measured)
    assert objective.balance(images, noise)["gan_to_rec"].item() == pytest.approx(ratio / 3, rel=1e-3)
    assert numbers["label_scale"].item() == pytest.approx(1 / 3, rel=1e-3)
    assert all(number is numbers[name] for name, number in objective.steered().items())
    assert all(value is not numbers[name] for name, value in measured.items() if name in numbers)


def test_each_view_is_held_by_itself():
    layers = ("relu1_1", "relu2_1")
    options = MultiViewOptions(critic="held", layers=layers)
    objective = MultiView(options, ModelConfig(16, width=2, latent=3), LossNetwork(layers))
    shares = {"relu1_1": 1.0, "relu2_1": 0.0625}
    terms = {f"{layer}_label_scale": torch.tensor(10.0) for layer in layers}
    terms |= {f"{layer}_gan_limit": torch.tensor(limit) for layer, limit in zip(layers, (7.0, 3.0), strict=True)}
    objective.steer(terms | {f"{layer}_gan_to_rec": torch.tensor(share) for layer, share in shares.items()})
    assert {n: t.item() for n, t in objective.steered().items()} == {
        "relu1_1.label_scale": 5.0,
        "relu1_1.gan_limit": 7.0,
        "relu2_1.label_scale": 20.0,
        "relu2_1.gan_limit": 3.0,
    }


def test_other_forms_have_nothing_to_steer():
    for critic in ("paper", "balanced"):
        objective = build(critic=critic)
        objective.steer({"gan_to_rec": torch.tensor(1.0)})
        assert objective.steered() == {} and objective.held is None


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
    images, noise = batch()
    objective = build(critic="held", label_scale=20, critic_share=1e9)
    objective.steer(objective.balance(images, noise))
    assert objective.held.label_scale.dtype == torch.float32 and objective.held.label_scale == 40
