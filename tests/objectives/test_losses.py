"""The closed forms against torch.distributions and by hand."""

import pytest
import torch
from torch.distributions import Normal
from torch.distributions import kl_divergence as textbook_kl

from fastvae.objectives.losses import gaussian_reconstruction, kl_divergence, reparameterise, scale_gradient


def test_kl_is_the_textbook_one():
    mean, log_variance = torch.randn(2, 5, 7, dtype=torch.float64)
    expected = textbook_kl(Normal(mean, (0.5 * log_variance).exp()), Normal(0.0, 1.0)).sum(1).mean()
    assert kl_divergence(mean, log_variance).item() == pytest.approx(expected.item(), rel=1e-12)


def test_kl_of_the_prior_is_zero_and_bfloat16_is_summed_in_float32():
    assert kl_divergence(torch.zeros(3, 4), torch.zeros(3, 4)).item() == 0
    assert kl_divergence(torch.ones(2, 1000).bfloat16(), torch.zeros(2, 1000).bfloat16()).item() == 500


def test_reparameterise_has_the_right_moments():
    z = reparameterise(torch.full((100_000, 1), 3.0), torch.full((100_000, 1), 2 * 0.6931472), torch.randn(100_000, 1))
    assert z.mean().item() == pytest.approx(3, abs=0.03)
    assert z.std().item() == pytest.approx(2, abs=0.03)


def test_gaussian_reconstruction_is_a_log_likelihood():
    x, y = torch.rand(2, 4, 3, 5, 5, dtype=torch.float64)
    constant = Normal(y, 0.3).log_prob(y)
    expected = (constant - Normal(y, 0.3).log_prob(x)).flatten(1).sum(1).mean()
    assert gaussian_reconstruction(x, y, 0.3).item() == pytest.approx(expected.item(), rel=1e-10)


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize("factor", [1e-5, -2.0, 0.0])
def test_a_scaled_gradient_leaves_the_value_alone(factor, compiled):
    def scaled(x):
        return scale_gradient(x, factor).clone()

    if compiled:
        scaled = torch.compile(scaled, fullgraph=True, backend="aot_eager")
    x = torch.tensor([0.1, -0.0, 1e30, float("inf"), float("nan")], requires_grad=True)
    g = torch.tensor([1.0, 3.0, 0.3, 0.7, -0.1])
    y = scaled(x)
    y.backward(g)
    assert torch.equal(y.detach().view(torch.int32), x.detach().view(torch.int32))  # to the bit
    assert torch.equal(x.grad, factor * g)


def test_scaling_a_gradient_moves_no_memory():
    x = torch.ones(3, requires_grad=True)
    assert scale_gradient(x, 2.0).data_ptr() == x.data_ptr()
