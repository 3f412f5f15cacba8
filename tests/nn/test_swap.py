"""swap_: the model computes the same, and its holders notice nothing."""

import copy
import pickle
from collections import OrderedDict

import pytest
import torch
from torch import nn

from fastvae.nn import ReplicationConv2d, swap_
from tests.nn.swapped_models import (
    Interpolating,
    Reversed,
    conv,
    sharing_a_block,
    sharing_a_convolution,
    unpadded,
    up,
    with_the_order_set_on_the_object,
)

# A model, and its swapped layers with their upsampling.
MODELS = {
    "decoder": (
        lambda: nn.Sequential(
            nn.Conv2d(2, 4, 1), up(), conv(4, 3, bias=False), nn.BatchNorm2d(3), nn.ReLU(), conv(3, 3), nn.Tanh()
        ),
        {"2": 2, "5": 1},
    ),
    "spellings of x2": (
        lambda: nn.Sequential(
            up(scale_factor=(2, 2)),
            conv(),
            nn.UpsamplingNearest2d(scale_factor=2),
            conv(padding="same"),
            up(mode="nearest-exact"),
            conv(),
        ),
        {"1": 2, "3": 2, "5": 2},
    ),
    "not x2": (
        lambda: nn.Sequential(
            up(scale_factor=3),
            conv(),
            up(mode="bilinear"),
            conv(),
            nn.Upsample(size=(9, 9)),
            conv(),
            up(),
            nn.ReLU(),
            conv(),
        ),
        {"1": 1, "3": 1, "5": 1, "8": 1},
    ),
    "twice up": (lambda: nn.Sequential(up(), up(), conv()), {"2": 2}),
    "pad spelled": (
        lambda: nn.Sequential(
            nn.ReplicationPad2d(1),
            unpadded(),
            nn.ReLU(),
            up(),
            nn.ReplicationPad2d((1, 1, 1, 1)),
            nn.Conv2d(2, 2, 3, padding="valid", padding_mode="reflect"),
            nn.ReplicationPad2d(1),
            conv(),
        ),
        {"1": 1, "5": 2, "7": 1},
    ),
    "nested": (
        lambda: nn.Sequential(
            up(),
            nn.Sequential(nn.Sequential(), nn.Sequential(conv(), nn.ReLU(), up())),
            nn.Sequential(OrderedDict(pad=nn.ReplicationPad2d(1))),
            unpadded(),
            nn.Sequential(up(), Reversed(nn.Sequential(up(), conv()), conv())),
        ),
        {"1.1.0": 2, "3": 2, "4.1.0.1": 2, "4.1.1": 1},
    ),
    "no Sequential": (Interpolating, {"first": 1, "second": 1}),
    "order of its own": (lambda: Reversed(up(), conv()), {"1": 1}),
    "order set on the object": (with_the_order_set_on_the_object, {"1": 1}),
    "shared convolution": (sharing_a_convolution, {"1": 1}),
    "shared block": (sharing_a_block, {"1.0": 1, "1.3": 2}),
}


def outcome(model, x):
    """The output and the gradient of everything, for a loss that weighs every pixel differently."""
    x = x.clone().requires_grad_()
    y = model(x)
    (y * torch.linspace(1, 2, y.numel(), dtype=y.dtype).view_as(y)).sum().backward()
    grads = {name: p.grad for name, p in model.named_parameters()}
    model.zero_grad()
    return {"output": y.detach(), "x": x.grad, **grads}


@pytest.mark.parametrize("case", MODELS)
def test_outputs_gradients_and_keys_stay(case):
    build, expected = MODELS[case]
    model = build().double()
    before, x = copy.deepcopy(model), torch.randn(2, 2, 3, 4, dtype=torch.float64)
    rng, parameters = torch.get_rng_state(), list(model.named_parameters())

    report = swap_(model)

    assert dict(report.swapped) == expected
    assert {n: m.upsample for n, m in model.named_modules() if type(m) is ReplicationConv2d} == expected
    assert torch.equal(torch.get_rng_state(), rng)
    assert all(p is q and n == m for (n, p), (m, q) in zip(model.named_parameters(), parameters, strict=True))
    assert [n for n, _ in model.named_modules()] == [n for n, _ in before.named_modules()]
    assert list(model.state_dict()) == list(before.state_dict())
    for (name, ours), theirs in zip(outcome(model, x).items(), outcome(before, x).values(), strict=True):
        assert torch.allclose(ours, theirs, rtol=0, atol=1e-12 * max(1, theirs.abs().max())), name

    again = swap_(model)
    assert again.swapped == () and again.left == report.left


def test_state_dicts_load_in_both_directions():
    build, _ = MODELS["decoder"]
    stock, swapped = build(), build()
    swap_(swapped)
    x = torch.randn(1, 2, 3, 3)
    for target, source in ((swapped, stock), (stock, swapped)):
        for p in source.parameters():
            nn.init.normal_(p)
        target.load_state_dict(source.state_dict())
        assert torch.allclose(target.eval()(x), source.eval()(x), atol=1e-5)


def test_an_optimizer_goes_on():
    x = torch.randn(2, 2, 3, 3, dtype=torch.float64)
    model = MODELS["pad spelled"][0]().double()
    results = []
    for swaps in (False, True):
        trained = copy.deepcopy(model)
        optimizer = torch.optim.Adam(trained.parameters(), lr=1e-2)
        for step in range(4):
            if swaps and step == 2:
                swap_(trained)
            optimizer.zero_grad()
            trained(x).square().mean().backward()
            optimizer.step()
        results.append(trained(x))
    assert torch.allclose(*results, rtol=0, atol=1e-9)


def test_what_was_set_on_a_layer_stays():
    model = nn.Sequential(up(), conv()).bfloat16().to(memory_format=torch.channels_last).eval()
    model[1].weight.requires_grad_(False)
    model[1].learning_rate_scale = 0.1
    swap_(model)
    layer = model[1]
    assert layer.weight.is_contiguous(memory_format=torch.channels_last) and layer.weight.dtype == torch.bfloat16
    assert not layer.weight.requires_grad and layer.bias.requires_grad
    assert not layer.training and not model[0].training
    assert layer.learning_rate_scale == 0.1
    x = torch.randn(2, 2, 4, 5, dtype=torch.bfloat16).contiguous(memory_format=torch.channels_last)
    assert layer(x).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=["deepcopy", "pickle"])
def test_a_swapped_model_can_be_copied(copied):
    model, x = MODELS["nested"][0](), torch.randn(1, 2, 3, 3)
    swap_(model)
    assert torch.equal(copied(model)(x), model(x))


def test_a_hook_on_a_nested_sequential_sees_what_it_saw():
    seen = []
    model = nn.Sequential(up(), nn.Sequential(conv()))
    model[1].register_forward_pre_hook(lambda _, args: seen.append(args[0].shape[-1]))
    assert swap_(model).swapped == (("1.0", 1),)
    model(torch.zeros(1, 2, 3, 3))
    assert seen == [6]


def test_swapping_again_takes_the_upsampling_that_had_to_stay():
    model, x = nn.Sequential(up(), conv()), torch.randn(1, 2, 3, 3)
    handle, expected = model[0].register_forward_hook(lambda *_: None), model(x)
    swap_(model)
    handle.remove()
    assert swap_(model).swapped == (("1", 2),)
    assert torch.allclose(model(x), expected, atol=1e-5)


def test_takes_the_upsampling_before_a_layer_written_by_hand():
    model, x = nn.Sequential(up(), ReplicationConv2d(2, 3)), torch.randn(1, 2, 3, 3)
    expected = model(x)
    assert swap_(model).swapped == (("1", 2),)
    assert torch.allclose(model(x), expected, atol=1e-5)
    # That layer has all that it can take.
    assert swap_(nn.Sequential(up(), model[1])).swapped == ()


class Stage(nn.Sequential):
    def __init__(self):
        super().__init__(up(), conv())


def test_looks_into_a_class_that_only_builds_its_sequential():
    x = torch.randn(1, 2, 3, 3)
    for model in (Stage(), nn.Sequential(up(), nn.Sequential(Stage(), conv()))):
        expected = model(x)
        assert 2 in [upsample for _, upsample in swap_(model).swapped]
        assert not any(isinstance(m, nn.Upsample) for m in model.modules() if m is not model[0])
        assert torch.allclose(model(x), expected, atol=1e-5)
