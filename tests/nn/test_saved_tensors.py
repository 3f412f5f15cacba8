"""What torch does with saved tensors, gradient checkpointing and offloading, works through everything of ours."""

import copy

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from fastvae.kernels import (
    batch_norm,
    conv_relu,
    feature_loss,
    replicate_conv2d,
    replicate_conv2d_with_sums,
    reverse_gradient,
)
from fastvae.lossnet import LossNetwork
from fastvae.models import VAE
from fastvae.nn import ReplicationConv2d, swap_


class Ops(nn.Module):
    """One operation of ours as a module: f(x, weight, bias)."""

    def __init__(self, f):
        super().__init__()
        self.f, self.weight, self.bias = f, nn.Parameter(torch.randn(4, 3, 3, 3)), nn.Parameter(torch.randn(4))

    def forward(self, x):
        return self.f(x, self.weight, self.bias)


def swapped() -> nn.Module:
    conv = nn.Conv2d(3, 4, 3, padding=1, padding_mode="replicate")
    model = nn.Sequential(nn.Upsample(scale_factor=2), conv, nn.BatchNorm2d(4), nn.ReLU())
    assert swap_(model).swapped
    return model


def normalised(x, weight, bias, **options):
    running = torch.zeros(3), torch.ones(3)
    return batch_norm(x, weight[:3, 0, 0, 0], bias[:3], *running, batches=2, **options)


class Pair(nn.Module):
    def __init__(self):
        super().__init__()
        self.network = LossNetwork(("relu1_1", "relu2_1"))

    def forward(self, x):
        features, fake_features = self.network.forward_pair(x.detach() * 0.5, x)
        return feature_loss(fake_features, features, (1.0, 2.0), through_relu=True)


class Stage(nn.Module):
    """One of the encoder's, in training, on two batches in one."""

    def __init__(self):
        super().__init__()
        self.stage = VAE(16, 2, 3).encoder.stages[0]

    def forward(self, x):
        return self.stage(x, 2)


MODELS = {
    "conv": lambda: ReplicationConv2d(3, 4),
    "upsampling conv": lambda: ReplicationConv2d(3, 4, upsample=2),
    "conv with activation": lambda: Ops(lambda *t: replicate_conv2d(*t, negative_slope=0.2)),
    "sums": lambda: Ops(lambda *t: sum(y.square().sum() for y in replicate_conv2d_with_sums(*t))),
    "conv_relu": lambda: Ops(lambda *t: conv_relu(*t, padding=1)),
    "feature_loss": lambda: Ops(lambda x, w, b: feature_loss([x, w], [x.detach() * 2, w.detach() * 3], (1.0, 2.0))),
    "reverse_gradient": lambda: Ops(lambda x, w, b: reverse_gradient(x)),
    "batch norm of parts": lambda: Ops(normalised),
    "batch norm and activation": lambda: Ops(lambda x, *t: normalised(x, *t, residual=x.sin(), negative_slope=0.2)),
    "swapped": swapped,
    "loss network pair": Pair,
    "encoder stage": Stage,
    "decoder stage": lambda: nn.Sequential(nn.Conv2d(3, 4, 1), VAE(16, 2, 3).decoder.stages[0]),
}


@pytest.fixture(params=MODELS.values(), ids=MODELS.keys())
def model(request):
    torch.manual_seed(0)
    return request.param().train()


def gradients(model, run):
    """Result and all gradients, of a copy, so that every run begins with the same running statistics."""
    model = copy.deepcopy(model)
    x = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(1)).requires_grad_()
    y = run(model, x)
    y.square().sum().backward()
    return [y.detach(), x.grad, *(p.grad for p in model.parameters() if p.grad is not None)]


def assert_same(found, expected):
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5 * b.abs().max().item())


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_checkpointing(model, use_reentrant):
    expected = gradients(model, lambda m, x: m(x))
    assert_same(gradients(model, lambda m, x: checkpoint(m, x, use_reentrant=use_reentrant)), expected)


@pytest.mark.parametrize("inside", [False, True])
def test_checkpointing_compiled(model, inside):
    def run(m, x):
        if inside:
            return torch.compile(lambda x: checkpoint(m, x, use_reentrant=False), backend="aot_eager")(x)
        return checkpoint(torch.compile(m, backend="aot_eager"), x, use_reentrant=False)

    assert_same(gradients(model, run), gradients(model, lambda m, x: m(x)))


def test_saved_tensors_are_unpacked_once_and_all_of_them_are_seen(model):
    kept, unpacked = [], []

    def pack(t):
        kept.append(t)
        return len(kept) - 1

    def unpack(index):
        unpacked.append(index)
        return kept[index]

    def run(m, x):
        with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
            return m(x)

    assert_same(gradients(model, run), gradients(model, lambda m, x: m(x)))
    assert len(set(unpacked)) == len(unpacked)


def test_saved_tensors_on_the_host(model):
    def run(m, x):
        with torch.autograd.graph.save_on_cpu():
            return m(x)

    assert_same(gradients(model, run), gradients(model, lambda m, x: m(x)))
