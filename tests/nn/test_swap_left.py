"""swap_: what stays as it was, and why."""

import re

import pytest
import torch
from torch import nn

from fastvae.nn import ReplicationConv2d, swap_
from tests.nn.swapped_models import compiled, conv, deprecated, hooked, sharing_a_convolution, unpadded, up


def with_own_forward(module):
    module.forward = module.forward
    return module


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


def test_does_not_mention_what_does_not_replicate():
    model = nn.Sequential(
        nn.Conv2d(2, 2, 3, padding=1),
        hooked(nn.Conv2d(2, 2, 3, padding=1, padding_mode="reflect")),
        compiled(nn.Sequential(nn.Conv2d(2, 2, 3), ReplicationConv2d(2, 2))),
        nn.Conv1d(2, 2, 3, padding=1, padding_mode="replicate"),
    )
    report = swap_(model)
    assert (report.swapped, report.left) == ((), ())
