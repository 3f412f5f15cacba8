"""ReplicationConv2d as drop-in for torch.nn.Conv2d: arguments, initial values, keys, and what users do to modules."""

import copy
import pickle

import pytest
import torch
from torch import nn

from fastvae.nn import ReplicationConv2d

ACCEPTED = {
    "keywords": ((64, 32, 3), dict(padding=1, padding_mode="replicate", bias=False)),
    "positional": ((4, 6, 3, 1, 1, 1, 1, False, "replicate", "cpu", torch.float64), {}),
    "pairs": ((4, 6, (3, 3), (1, 1), (1, 1), (1, 1)), dict(padding_mode="replicate")),
    "lists": ((4, 6, [3, 3]), dict(padding=[1, 1], padding_mode="replicate")),
    "same": ((4, 6, 3), dict(padding="same", padding_mode="replicate", dtype=torch.float64)),
}


@pytest.mark.parametrize("case", ACCEPTED)
def test_only_the_class_name_changes(case):
    args, kwargs = ACCEPTED[case]
    torch.manual_seed(1)
    stock = nn.Conv2d(*args, **kwargs)
    torch.manual_seed(1)
    ours = ReplicationConv2d(*args, **kwargs)
    assert isinstance(ours, nn.Conv2d)
    assert list(ours.state_dict()) == list(stock.state_dict())
    for p, q in zip(ours.parameters(), stock.parameters(), strict=True):
        assert torch.equal(p, q) and p.dtype == q.dtype
    x = torch.randn(2, args[0], 5, 3, dtype=torch.float64)
    assert torch.allclose(ours.double()(x), stock.double()(x), rtol=0, atol=1e-12)


def test_what_there_is_no_choice_of_may_be_left_out():
    short, full = ReplicationConv2d(2, 3), ReplicationConv2d(2, 3, 3, padding=1, padding_mode="replicate")
    assert {k: v for k, v in vars(short).items() if k[0] != "_"} == {k: v for k, v in vars(full).items() if k[0] != "_"}


def test_upsampling_is_that_of_torch():
    conv = ReplicationConv2d(2, 3, upsample=2).double()
    stock = nn.Conv2d(2, 3, 3, padding=1, padding_mode="replicate").double()
    stock.load_state_dict(conv.state_dict())
    x = torch.randn(2, 2, 3, 5, dtype=torch.float64)
    assert torch.allclose(conv(x), stock(nn.Upsample(scale_factor=2)(x)), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "wrong, came",
    [
        (dict(kernel_size=5, padding=2), r"kernel_size=\(5, 5\), padding=\(2, 2\)"),
        (dict(kernel_size=(3, 1)), r"kernel_size=\(3, 1\)"),
        (dict(stride=2), r"stride=\(2, 2\)"),
        (dict(padding=0), r"padding=\(0, 0\)"),
        (dict(padding="valid"), "padding='valid'"),
        (dict(dilation=2), r"dilation=\(2, 2\)"),
        (dict(groups=2), "groups=2"),
        (dict(padding_mode="zeros"), "padding_mode='zeros'"),
    ],
    ids=lambda v: next(iter(v)) if isinstance(v, dict) else "",
)
def test_refuses_what_it_cannot_do(wrong, came):
    with pytest.raises(ValueError, match=rf"takes kernel_size=3, .*; got {came}: use torch.nn.Conv2d"):
        ReplicationConv2d(4, 4, **wrong)


def test_refuses_other_upsampling():
    with pytest.raises(ValueError, match="upsample=1 or upsample=2; got 3"):
        ReplicationConv2d(4, 4, upsample=3)


def test_one_image_without_a_batch():
    conv, x = ReplicationConv2d(2, 3), torch.randn(2, 4, 5)
    assert torch.equal(conv(x), conv(x[None])[0])
    # torch would read [C, H, W] as a batch of lines when it upsamples, so that there is nothing to agree with.
    with pytest.raises(ValueError, match=r"\[B, C, H, W\]"):
        ReplicationConv2d(2, 3, upsample=2)(x)


def test_what_computes_a_weight_of_its_own_gets_the_same_layer():
    conv, x = ReplicationConv2d(2, 3, upsample=2).double(), torch.randn(1, 2, 4, 4, dtype=torch.float64)
    halved = conv._conv_forward(x, conv.weight / 2, None)
    assert torch.allclose(halved, (conv(x) - conv.bias.view(3, 1, 1)) / 2, rtol=0, atol=1e-12)
    expected = conv(x)
    nn.utils.parametrizations.weight_norm(conv)
    assert torch.allclose(conv(x), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=["deepcopy", "pickle"])
def test_copies(copied):
    conv = ReplicationConv2d(2, 3, upsample=2, bias=False).eval()
    twin, x = copied(conv), torch.randn(1, 2, 4, 4)
    assert type(twin) is ReplicationConv2d and not twin.training and twin.weight is not conv.weight
    assert torch.equal(twin(x), conv(x))


def test_repr():
    assert repr(ReplicationConv2d(64, 32, upsample=2, bias=False)) == (
        "ReplicationConv2d(64, 32, upsample=2, bias=False)"
    )
    assert repr(ReplicationConv2d(64, 32)) == "ReplicationConv2d(64, 32)"


def test_moves_to_other_layouts_dtypes_and_devices():
    conv = ReplicationConv2d(2, 3).to(memory_format=torch.channels_last)
    assert conv.weight.is_contiguous(memory_format=torch.channels_last)
    assert conv.bfloat16()(torch.randn(1, 2, 4, 4, dtype=torch.bfloat16)).dtype == torch.bfloat16
    assert ReplicationConv2d(2, 3, device="meta").weight.is_meta


def test_symbolic_trace_and_export():
    model, x = nn.Sequential(ReplicationConv2d(2, 3, upsample=2), nn.ReLU()).eval(), torch.randn(1, 2, 4, 4)
    assert torch.equal(torch.fx.symbolic_trace(model)(x), model(x))
    assert torch.equal(torch.export.export(model, (x,)).module()(x), model(x))
