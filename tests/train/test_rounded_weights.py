"""Rounding all weights at once is rounding each where it is used."""

import pytest
import torch
from torch import nn

from fastvae.nn import ReplicationConv2d
from fastvae.train.rounded_weights import RoundedWeights, _cast_all_op

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
