"""Rounding all weights at once is rounding each where it is used."""

import pytest
import torch
from torch import nn

from fastvae.kernels import packed_weight
from fastvae.nn import ReplicationConv2d
from fastvae.train import rounded_weights
from fastvae.train.rounded_weights import RoundedWeights, _cast_all_op
from tests.kernels import interpreter
from tests.kernels.interpreter import interpreted

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.replicated = ReplicationConv2d(4, 4, upsample=2)
        self.transposed = nn.ConvTranspose2d(4, 4, 4, stride=2, padding=1)
        self.linear = nn.Linear(4, 2)

    def forward(self, x):
        x = self.replicated(self.norm(self.conv(x)).relu())
        return self.linear(self.transposed(x).mean((2, 3)))


def gradients(net: Net, function, x) -> list[torch.Tensor]:
    net.zero_grad()
    with torch.autocast(x.device.type, torch.bfloat16):
        loss = function(x)
    loss.backward()
    return [loss.detach(), *(p.grad for p in net.parameters())]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("backend", [None, "aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_loss_and_gradients_are_those_of_autocast(backend, device):
    net, x = Net().to(device), torch.randn(2, 3, 6, 6, device=device)

    def loss(x):
        return net(x).float().square().mean()

    def both(function):
        return torch.compile(function, fullgraph=True, dynamic=False, backend=backend) if backend else function

    expected = gradients(net, both(loss), x)
    found = gradients(net, both(RoundedWeights([net], loss).rounded), x)
    for a, b in zip(expected, found, strict=True):
        assert torch.equal(a, b) and b.dtype == torch.float32


def test_only_what_autocast_rounds_is_rounded():
    net, seen = Net(), {}

    def look():
        seen.update({name: p.dtype for name, p in net.named_parameters()})

    RoundedWeights([net], look).rounded()
    narrow = {name for name, dtype in seen.items() if dtype == torch.bfloat16}
    assert narrow == {"conv.weight", "transposed.weight", "linear.weight"}
    assert all(p.dtype == torch.float32 for p in net.parameters())


@pytest.mark.parametrize("networks", [[], [nn.BatchNorm2d(3)]], ids=["no_network", "nothing_to_round"])
@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
def test_there_may_be_nothing_to_round(networks, compiled):
    def double(x):
        return 2 * x

    rounded = RoundedWeights(networks, double).rounded
    rounded = torch.compile(rounded, fullgraph=True, backend="aot_eager") if compiled else rounded
    assert torch.equal(rounded(torch.ones(2)), torch.full((2,), 2.0))


def test_the_op_is_a_proper_one():
    tensors = [
        torch.randn(3, requires_grad=True),
        torch.randn(2, 3, 2, 2).contiguous(memory_format=torch.channels_last),
    ]
    torch.library.opcheck(_cast_all_op, (tensors, torch.bfloat16))
    assert [t.stride() for t in _cast_all_op(tensors, torch.bfloat16)] == [t.stride() for t in tensors]


class Decoder(nn.Module):
    """Two replication-padded convolutions."""

    def __init__(self):
        super().__init__()
        self.first, self.last = ReplicationConv2d(2, 5, upsample=2), ReplicationConv2d(5, 3)

    def forward(self, x):
        return self.last(self.first(x).relu())


def test_replicated_weights_are_packed_in_one_launch_and_keep_their_gradient(monkeypatch):
    net, x, launched = Decoder(), torch.randn(1, 2, 3, 3), []
    launch = interpreter._launch

    def recording(kernel, *rest):
        launched.append(kernel.fn.__name__)
        launch(kernel, *rest)

    monkeypatch.setattr(interpreter, "_launch", recording)

    def loss(x):
        return net(x).float().square().mean()

    with interpreted():
        expected = gradients(net, loss, x)
        assert launched.count("pack_weights_kernel") == 2
        launched.clear()
        found = gradients(net, RoundedWeights([net], loss).rounded, x)
    assert launched.count("pack_weights_kernel") == 1
    for a, b in zip(expected, found, strict=True):
        assert torch.equal(a, b) and b.dtype == torch.float32
    assert net.first.packed is None and net.last.packed is None


def test_packing_compiles(monkeypatch):
    """With the op's form for CPUs in place of the kernel: what is packed reaches the modules, and only for the call."""

    def pack_anyway(weights, upsamples, dtype):
        return packed_weight._pack([weight.detach() for weight in weights], upsamples, dtype)

    monkeypatch.setattr(rounded_weights, "pack_weights", pack_anyway)
    net, seen = Decoder(), []

    def loss(x):
        seen.extend((net.first.packed.shape, net.last.packed.dtype))
        return net(x).float().square().mean()

    expected = gradients(net, lambda x: net(x).float().square().mean(), torch.ones(1, 2, 3, 3))
    compiled = torch.compile(RoundedWeights([net], loss).rounded, fullgraph=True, backend="aot_eager")
    found = gradients(net, compiled, torch.ones(1, 2, 3, 3))
    assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))
    assert seen == [(16, 5, 2), torch.bfloat16]
    assert net.first.packed is None and net.last.packed is None
