"""swap_: the model computes the same, its holders notice nothing, and the report tells what stayed and why."""

import copy
import functools
import pickle
import re
import warnings
from collections import OrderedDict

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fastvae.nn import ReplicationConv2d, swap_


def conv(i=2, o=2, kernel_size=3, **kwargs):
    return nn.Conv2d(i, o, kernel_size, **{"padding": 1, "padding_mode": "replicate"} | kwargs)


def unpadded(i=2, o=2):
    return nn.Conv2d(i, o, 3)


def up(**kwargs):
    return nn.Upsample(**{"scale_factor": 2} | kwargs)


class Interpolating(nn.Module):
    """No Sequential: the Upsample runs after the convolution before which it is defined, and another is a function."""

    def __init__(self):
        super().__init__()
        self.up = up()
        self.first = conv()
        self.second = conv(bias=False)

    def forward(self, x):
        return self.second(F.interpolate(self.up(self.first(x)), scale_factor=2, mode="nearest"))


class Reversed(nn.Sequential):
    def forward(self, x):
        for module in reversed(self):
            x = module(x)
        return x


def with_the_order_set_on_the_object():
    model = nn.Sequential(up(), conv())
    model.forward = functools.partial(Reversed.forward, model)
    return model


def sharing_a_convolution():
    shared = conv()
    return nn.Sequential(up(), shared, nn.ReLU(), shared)


def sharing_a_block():
    block = nn.Sequential(conv(), nn.ReLU(), up(), conv())
    return nn.Sequential(up(), block, nn.Tanh(), block)


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


def hooked(module):
    module.register_forward_hook(lambda *_: None)
    return module


def with_own_forward(module):
    module.forward = module.forward
    return module


def compiled(module):
    module.compile(backend="eager")
    return module


def deprecated(function, module):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return function(module)


def with_buffer(module):
    module.register_buffer("scale", torch.ones(1))
    return module


class Subclass(nn.Conv2d):
    pass


class TensorSubclass(torch.Tensor):
    pass


def with_foreign_weight(module):
    module.weight = nn.Parameter(module.weight.detach().as_subclass(TensorSubclass))
    return module


class PadSubclass(nn.ReplicationPad2d):
    pass


def sharing_a_pad():
    pad = nn.ReplicationPad2d(1)
    return nn.Sequential(pad, unpadded(), pad, nn.ReLU())


def sharing_an_unpadded_convolution():
    shared = unpadded()
    return nn.Sequential(nn.ReplicationPad2d(1), shared, shared)


def sharing_an_upsampling():
    shared = up()
    return nn.Sequential(shared, conv(), shared)


NOT_ALL = r"; ReplicationConv2d takes kernel_size=3, stride=1, padding=1 or \"same\", dilation=1, groups=1 and"
HOOKS = "has hooks; swap before registering them"
COMPILED = "is compiled already; swap first, then compile"

# A model, and the one layer in it that is left, with the reason.
LEFT = {
    "kernel": (lambda: conv(kernel_size=5, padding=2), "0", r"has kernel_size=\(5, 5\), padding=\(2, 2\)" + NOT_ALL),
    "stride": (lambda: conv(stride=2), "0", r"has stride=\(2, 2\)" + NOT_ALL),
    "dilation": (lambda: conv(dilation=2, padding=2), "0", r"has padding=\(2, 2\), dilation=\(2, 2\)" + NOT_ALL),
    "groups": (lambda: conv(groups=2), "0", "has groups=2" + NOT_ALL),
    "no padding": (lambda: conv(padding=0), "0", r"has padding=\(0, 0\)" + NOT_ALL),
    "subclass": (
        lambda: Subclass(2, 2, 3, padding=1, padding_mode="replicate"),
        "0",
        "is a Subclass, which may do more than torch.nn.Conv2d",
    ),
    "lazy": (
        lambda: nn.LazyConv2d(2, 3, padding=1, padding_mode="replicate"),
        "0",
        "has no weight yet; run the model once, then swap",
    ),
    "weight norm": (lambda: nn.utils.parametrizations.weight_norm(conv()), "0", "is parametrized"),
    "spectral norm": (lambda: nn.utils.parametrizations.spectral_norm(conv()), "0", "is parametrized"),
    "old weight norm": (lambda: deprecated(nn.utils.weight_norm, conv()), "0", HOOKS),
    "old spectral norm": (lambda: deprecated(nn.utils.spectral_norm, conv()), "0", HOOKS),
    "hook": (lambda: hooked(conv()), "0", HOOKS),
    "own forward": (lambda: with_own_forward(conv()), "0", "has its own forward, set on the object"),
    "compiled layer": (lambda: compiled(conv()), "0", COMPILED),
    "compiled block": (lambda: compiled(nn.Sequential(up(), conv())), "0", COMPILED),
    "compile's wrapper": (lambda: torch.compile(nn.Sequential(conv()), backend="eager"), "0", COMPILED),
    "scripted": (
        lambda: deprecated(torch.jit.script, nn.Sequential(conv())),
        "0",
        "is a TorchScript module, whose layers cannot be replaced; swap first, then script or trace",
    ),
    "buffer": (lambda: with_buffer(conv()), "0", "holds something else than a weight and a bias"),
    "complex": (
        lambda: conv(dtype=torch.complex64),
        "0",
        "has a weight that is a Parameter of torch.complex64, not a Parameter of floating point",
    ),
    "tensor subclass": (
        lambda: with_foreign_weight(conv()),
        "0",
        "has a weight that is a TensorSubclass of torch.float32, not",
    ),
    "kernel after pad": (
        lambda: nn.Sequential(nn.ReplicationPad2d(3), nn.Conv2d(2, 2, 7)),
        "0.1",
        r"has kernel_size=\(7, 7\)" + NOT_ALL,
    ),
    "wide pad": (
        lambda: nn.Sequential(nn.ReplicationPad2d((1, 1, 2, 0)), unpadded()),
        "0.1",
        r"follows a ReplicationPad2d of \(1, 1, 2, 0\); ReplicationConv2d pads by 1 on each side",
    ),
    "padding after pad": (
        lambda: nn.Sequential(nn.ReplicationPad2d(1), conv(padding_mode="zeros")),
        "0.1",
        r"has padding=\(1, 1\) on top of the ReplicationPad2d before it",
    ),
    "pad subclass": (
        lambda: nn.Sequential(PadSubclass(1), unpadded()),
        "0.1",
        "follows a PadSubclass, which may do more than torch.nn.ReplicationPad2d",
    ),
    "hooked pad": (
        lambda: nn.Sequential(hooked(nn.ReplicationPad2d(1)), unpadded()),
        "0.1",
        "follows a ReplicationPad2d that " + HOOKS,
    ),
    "shared pad": (
        sharing_a_pad,
        "0.1",
        "follows a ReplicationPad2d that is used in several places; give each its own",
    ),
    "shared after pad": (
        sharing_an_unpadded_convolution,
        "0.1",
        "follows a ReplicationPad2d that stands before a convolution that is used in several places",
    ),
}


@pytest.mark.parametrize("case", LEFT)
def test_leaves_with_a_reason(case):
    build, name, reason = LEFT[case]
    model = nn.Sequential(build())
    modules = list(model.modules())
    report = swap_(model)
    assert report.swapped == ()
    ((left, why),) = report.left
    assert left == name
    assert re.match(reason, why)
    assert all(m is n for m, n in zip(model.modules(), modules, strict=True))


UPSAMPLINGS_LEFT = {
    "shared": (sharing_an_upsampling, "0", "is used in several places; give each its own"),
    "hook": (lambda: nn.Sequential(hooked(up()), conv()), "0", HOOKS),
    "shared convolution": (
        sharing_a_convolution,
        "0",
        "stands before a convolution that is used in several places",
    ),
}


@pytest.mark.parametrize("case", UPSAMPLINGS_LEFT)
def test_an_upsampling_stays_before_its_swapped_convolution(case):
    build, name, reason = UPSAMPLINGS_LEFT[case]
    model = build()
    assert swap_(model).swapped == (("1", 1),)
    assert swap_(model).left == ((name, reason),)


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


def test_does_not_mention_what_does_not_replicate():
    model = nn.Sequential(
        nn.Conv2d(2, 2, 3, padding=1),
        hooked(nn.Conv2d(2, 2, 3, padding=1, padding_mode="reflect")),
        compiled(nn.Sequential(nn.Conv2d(2, 2, 3), ReplicationConv2d(2, 2))),
        nn.Conv1d(2, 2, 3, padding=1, padding_mode="replicate"),
    )
    report = swap_(model)
    assert (report.swapped, report.left) == ((), ())


def test_a_single_convolution_is_reported():
    report = swap_(conv())
    assert report.swapped == ()
    assert str(report) == (
        "Swapped no convolutions.\n"
        "Left as they were:\n"
        "  (the model itself): cannot be replaced in place; build it as fastvae.nn.ReplicationConv2d"
    )


@pytest.mark.parametrize(
    "to_script", [torch.jit.script, lambda m: torch.jit.trace(m, torch.zeros(1, 2, 3, 3))], ids=["script", "trace"]
)
def test_a_torchscript_model_is_reported(to_script):
    report = swap_(deprecated(to_script, nn.Sequential(conv())))
    assert report.swapped == ()
    assert "(the model itself): is a TorchScript module" in str(report)


def test_refuses_a_compiled_model():
    for model in (compiled(nn.Sequential(conv())), torch.compile(nn.Sequential(conv()), backend="eager")):
        with pytest.raises(ValueError, match=r"call swap_\(model\) first, then torch.compile\(model\)"):
            swap_(model)


def test_report_reads_well():
    model = nn.ModuleDict(
        {
            "stem": conv(kernel_size=5, padding=2),
            "body": nn.Sequential(up(), conv(), nn.ReLU(), conv()),
            "head": hooked(conv()),
        }
    )
    assert str(swap_(model)) == (
        "Swapped 2 convolutions, 1 along with the x2 upsampling before it:\n"
        "  body.1  (upsample=2)\n"
        "  body.3\n"
        "Left as they were:\n"
        "  stem: has kernel_size=(5, 5), padding=(2, 2); ReplicationConv2d takes kernel_size=3, stride=1, padding=1 or "
        '"same", dilation=1, groups=1 and padding_mode="replicate"\n'
        "  head: has hooks; swap before registering them"
    )
    assert str(swap_(nn.Sequential(conv()))) == "Swapped 1 convolution:\n  0"
    assert str(swap_(nn.Linear(1, 1))) == (
        "Nothing to swap: the model has no torch.nn.Conv2d with replication padding left."
    )


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
