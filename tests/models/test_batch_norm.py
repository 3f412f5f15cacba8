"""Several batches in one tensor: each is normalised as if it were alone, eager and compiled."""

import copy

import pytest
import torch
from torch import nn

from bench.measuring.closeness import relative_error
from fastvae.models.batch_norm import BatchNorm2d
from fastvae.models.critic import Critic

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


def norm(dtype: torch.dtype = torch.float64) -> BatchNorm2d:
    made = BatchNorm2d(3).to(dtype)
    with torch.no_grad():
        for tensor in (*made.parameters(), made.running_mean):
            tensor.normal_()
    return made


def test_one_batch_is_torchs():
    ours = norm()
    theirs = nn.BatchNorm2d(3).double()
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(4, 3, 5, 2, dtype=torch.float64)
    assert torch.equal(ours(x), theirs(x)) and torch.equal(ours.running_var, theirs.running_var)
    assert ours.num_batches_tracked == 0 and theirs.num_batches_tracked == 1
    assert torch.equal(ours.eval()(x, batches=2), theirs.eval()(x))


def test_torchs_update_bn_takes_it():
    """Which asks for the plain average over all batches: momentum None."""
    ours, theirs = norm(), nn.BatchNorm2d(3).double()
    theirs.load_state_dict(ours.state_dict())
    batches = torch.randn(3, 4, 3, 5, 2, dtype=torch.float64)
    for module in (ours, theirs):
        torch.optim.swa_utils.update_bn(batches, module)
    assert torch.equal(ours.running_var, theirs.running_var) and torch.equal(ours.running_mean, theirs.running_mean)
    ours.momentum = theirs.momentum = None
    assert torch.equal(ours(batches[0], batches=2), torch.cat([theirs(part) for part in batches[0].chunk(2)]))
    assert torch.equal(ours.running_var, theirs.running_var)
    assert torch.equal(ours.eval()(batches[0], batches=2), theirs.eval()(batches[0]))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize("parts", [2, 3])
def test_parts_are_batches_of_their_own(parts, compiled, device):
    ours = norm().to(device)
    theirs = copy.deepcopy(ours)
    x = torch.randn(2 * parts, 3, 5, 2, dtype=torch.float64, device=device, requires_grad=True)
    direction = torch.randn_like(x)

    def call(x):
        return ours(x, parts)

    y = torch.compile(call, fullgraph=True, backend="aot_eager")(x) if compiled else call(x)
    expected = torch.cat([theirs(part) for part in x.chunk(parts)])
    assert relative_error(y, expected) < 1e-12
    found = torch.autograd.grad(y, (x, *ours.parameters()), direction)
    wanted = torch.autograd.grad(expected, (x, *theirs.parameters()), direction)
    for a, b in zip((*found, *ours.buffers()), (*wanted, *theirs.buffers()), strict=True):
        assert relative_error(a.double(), b.double()) < 1e-12


def test_half_precision_is_summed_in_float32():
    x = (torch.randn(16, 3, 16, 16) + 50).bfloat16()
    ours = BatchNorm2d(3)
    y = torch.compile(lambda x: ours(x, 2), fullgraph=True, backend="aot_eager")(x)
    first, second = x.double().chunk(2)
    assert y.dtype == torch.bfloat16
    expected = 0.9 * 0.1 * first.mean((0, 2, 3)) + 0.1 * second.mean((0, 2, 3))
    assert relative_error(ours.running_mean.double(), expected) < 1e-6
    expected = 0.81 + 0.9 * 0.1 * first.var((0, 2, 3)) + 0.1 * second.var((0, 2, 3))
    assert relative_error(ours.running_var.double(), expected) < 1e-4


def test_a_single_value_has_no_variance():
    with pytest.raises(ValueError, match="more than one value per channel"):
        norm()(torch.zeros(2, 3, 1, 1, dtype=torch.float64), 2)


@pytest.mark.parametrize("training", [True, False])
def test_the_critic_scores_a_pair_as_two_calls(training):
    ours = Critic(32, 4, in_channels=8).double().train(training)
    theirs = copy.deepcopy(ours)
    real, fake = torch.randn(2, 4, 8, 32, 32, dtype=torch.float64)
    with torch.no_grad():
        found, expected = ours.forward_pair(real, fake), (theirs(real), theirs(fake))
    for a, b in zip((*found, *ours.buffers()), (*expected, *theirs.buffers()), strict=True):
        assert relative_error(a.double(), b.double()) < 1e-12
