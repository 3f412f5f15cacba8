"""`reverse_gradient`: the identity forward, its negative backward."""

import torch

from fastvae.kernels import reverse_gradient


def test_identity_forward_and_negated_backward():
    x = torch.randn(3, 4, requires_grad=True)
    y = reverse_gradient(x)
    assert torch.equal(y, x)
    (y * 2).sum().backward()
    assert torch.equal(x.grad, torch.full_like(x, -2))


def test_compiled_in_one_graph():
    x = torch.randn(3, requires_grad=True)
    torch.compile(lambda t: reverse_gradient(t).square().sum(), fullgraph=True)(x).backward()
    assert torch.allclose(x.grad, -2 * x)
