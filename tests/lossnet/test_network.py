"""The loss network's architecture, its input scale and that it is frozen."""

import copy

import pytest
import torch
import torch.nn.functional as F

from fastvae.errors import UsageError
from fastvae.kernels import force, winograd
from fastvae.lossnet import TAPS, LossNetwork
from fastvae.lossnet.network import conv_layers

# The indices of VGG-19's convolutions in torchvision's `features`.
KEYS = (0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28)


def textbook(state, images):
    """VGG-19 as the paper's table reads: stacks of 3x3 convolutions with 2x2 poolings between."""
    mean = torch.tensor([123.68, 116.779, 103.939], dtype=images.dtype).view(1, 3, 1, 1)
    x = (images + 1) / 2 * 255 - mean
    taps = []
    for block in ([0, 2], [5, 7], [10, 12, 14, 16], [19, 21, 23, 25], [28]):
        if block[0]:
            x = F.max_pool2d(x, kernel_size=2, stride=2)
        for index in block:
            x = F.relu(F.conv2d(x, state[f"features.{index}.weight"], state[f"features.{index}.bias"], padding=1))
            if index == block[0]:
                taps.append(x)
    return taps


def test_equals_the_textbook_composition(images):
    network = LossNetwork().double()
    features = network(images.double())
    assert network.channels == (64, 128, 256, 512, 512)
    assert [tuple(f.shape[1:]) for f in features] == [
        (64, 24, 32),
        (128, 12, 16),
        (256, 6, 8),
        (512, 3, 4),
        (512, 1, 2),
    ]
    for ours, expected in zip(features, textbook(network.state_dict(), images.double()), strict=True):
        # 1e-6: the shift is kept in float32.
        torch.testing.assert_close(ours, expected, rtol=1e-6, atol=1e-6 * expected.abs().max().item())


def test_state_dict_has_torchvision_keys():
    expected = [f"features.{index}.{kind}" for index in KEYS for kind in ("weight", "bias")]
    assert list(LossNetwork().state_dict()) == expected
    assert conv_layers()[28] == ("conv5_1", 512, 512)


@pytest.mark.parametrize(
    ("taps", "deepest", "channels"),
    [(("relu1_1",), 0, (64,)), (("relu3_1", "relu1_1"), 10, (64, 256)), ("relu2_1", 5, (128,))],
    ids=["first", "out-of-order", "bare-string"],
)
def test_deeper_layers_are_not_built(taps, deepest, channels, images):
    network = LossNetwork(taps)
    assert max(index for index in KEYS if f"features.{index}.weight" in network.state_dict()) == deepest
    assert network.channels == channels
    assert network.taps == tuple(sorted([taps] if isinstance(taps, str) else taps))
    assert tuple(f.shape[1] for f in network(images)) == channels


@pytest.mark.parametrize("taps", [(), ("relu1_2",), ("relu1_1", "relu1_1")], ids=["none", "unknown", "twice"])
def test_bad_taps_are_refused(taps):
    with pytest.raises(UsageError, match="relu1_1, relu2_1, relu3_1, relu4_1, relu5_1"):
        LossNetwork(taps)


def test_is_frozen_but_lets_gradients_through(images):
    network = LossNetwork(("relu1_1", "relu2_1"))
    network.train()
    assert not any(module.training for module in network.modules())
    images.requires_grad_()
    sum(f.square().mean() for f in network(images)).backward()
    assert images.grad.abs().min() >= 0 and images.grad.abs().max() > 0
    assert all(p.grad is None and not p.requires_grad for p in network.parameters())


def test_gradient_of_the_images_is_right():
    network = LossNetwork(("relu1_1", "relu2_1")).double()
    x = torch.rand(1, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: tuple(f.mean((0, 2, 3))[:4] / 100 for f in network(x)), (x,))


def test_building_leaves_the_random_state_alone():
    before = torch.random.get_rng_state()
    LossNetwork(("relu1_1",))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_compiles_without_graph_breaks(images):
    network = LossNetwork(("relu1_1", "relu2_1"))
    compiled = torch.compile(network, fullgraph=True, backend="aot_eager")
    images.requires_grad_()
    ours, expected = compiled(images), network(images)
    torch.testing.assert_close(ours, expected)
    gradient, expected_gradient = (
        torch.autograd.grad(sum(f.square().mean() for f in features), images)[0] for features in (ours, expected)
    )
    torch.testing.assert_close(gradient, expected_gradient)


def test_keeps_channels_last(images):
    network = LossNetwork(TAPS[:3]).to(memory_format=torch.channels_last)
    features = network(images.to(memory_format=torch.channels_last))
    assert all(f.is_contiguous(memory_format=torch.channels_last) for f in features)
    for ours, expected in zip(features, network(images), strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-3)


def test_bfloat16_autocast_stays_within_its_rounding(images):
    network = LossNetwork(TAPS[:3])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        features = network(images)
    for ours, expected in zip(features, network(images), strict=True):
        assert ours.dtype == torch.bfloat16
        assert (ours.float() - expected).norm() < 0.02 * expected.norm()


def test_rounded_weights_give_the_features_of_autocast(images):
    network = LossNetwork(TAPS[:3])
    with torch.autocast("cpu", torch.bfloat16):
        expected = network(images)
        found = network.round_weights_(torch.bfloat16)(images)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    assert network.shift.dtype == torch.float32


@pytest.fixture
def gpu():
    """Within it networks are laid out as on a GPU; a network is called after it, to run ATen."""
    return lambda: force("cudnn", op="conv_relu")


def test_on_a_gpu_conv1_1_has_eight_channels(gpu, images):
    network = LossNetwork(("relu1_1", "relu2_1"))
    expected = network(images)
    state = {key: value.clone() for key, value in network.state_dict().items()}
    with gpu():
        network.to(memory_format=torch.channels_last)
    weight = network.aligned_weight
    assert weight.shape == (64, 8, 3, 3) and weight.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(weight[:, :3], state["features.0.weight"]) and weight[:, 3:].count_nonzero() == 0
    assert {key: value.shape for key, value in network.state_dict().items()} == {k: v.shape for k, v in state.items()}
    assert not any(p.requires_grad for p in network.parameters()) and not weight.requires_grad
    for found, plain in zip(network(images), expected, strict=True):
        torch.testing.assert_close(found, plain, rtol=1e-5, atol=1e-3)


def test_the_eight_channels_follow_the_weight(gpu, images):
    network, other = LossNetwork(TAPS[:2]), LossNetwork(TAPS[:2])
    with gpu():
        network.to(memory_format=torch.channels_last)
        network.load_state_dict(other.state_dict())
        assert torch.equal(network.aligned_weight[:, :3], other.features[0].weight)
        part = network.part(("relu1_1",))
        assert part.aligned_weight is network.aligned_weight
        network.round_weights_(torch.bfloat16)
        assert network.aligned_weight.dtype == torch.bfloat16
        parent = torch.nn.Sequential(network)  # as an objective holds it
        parent.double()
        assert torch.equal(network.aligned_weight[:, :3], network.features[0].weight)
        assert network.aligned_weight.dtype == torch.float64
    assert torch.equal(copy.deepcopy(network).aligned_weight, network.aligned_weight)
    assert network.to("cpu").aligned_weight is None


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [((3, 16, 16), torch.float32), ((1, 1, 16, 16), torch.float32), ((1, 3, 16, 16), torch.uint8)],
    ids=["no-batch", "grey", "uint8"],
)
def test_bad_images_are_refused(shape, dtype):
    with pytest.raises(ValueError, match=r"\[B, 3, H, W\]"):
        LossNetwork(("relu1_1",))(torch.zeros(shape, dtype=dtype))


def test_images_too_small_for_the_poolings_are_refused():
    with pytest.raises(ValueError, match="at least 4 pixels"):
        LossNetwork(("relu3_1",))(torch.zeros(1, 3, 3, 8))


def test_a_part_is_the_same_layers_up_to_its_deepest_tap():
    torch.manual_seed(0)
    network = LossNetwork()
    part = network.part(("relu1_1", "relu3_1"))
    images = torch.rand(2, 3, 32, 32) * 2 - 1
    first, _, third, *_ = network(images)
    assert part.channels == (64, 256) and all(map(torch.equal, part(images), (first, third)))
    assert all(a is b for a, b in zip(part.parameters(), network.parameters(), strict=False))
    with pytest.raises(ValueError, match="relu5_1 is deeper"):
        part.part(("relu5_1",))


def test_loading_does_not_ask_for_a_compiler(monkeypatch):
    """A network on its way to a GPU begins on the CPU."""
    monkeypatch.setattr(winograd, "is_available", lambda: pytest.fail("asked"))
    network = LossNetwork(("relu1_1",))
    network.load_state_dict(network.state_dict())
    assert network.aligned_weight is None
