"""`feature_loss` against equations 5 and 6."""

import pytest
import torch
from fastvae.kernels import feature_loss, feature_loss_ref
from fastvae.kernels.feature_loss import paper_weights


def features(dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shapes = [(3, 4, 6, 6), (3, 8, 3, 3), (3, 5, 1, 2)]
    return [torch.randn(s, generator=generator, dtype=torch.float64).to(dtype) for s in shapes]


def test_by_hand():
    # One layer of two channels and 1x1: eq. 5 gives (3^2 + 4^2) / (2 * 2) = 6.25, eq. 6 weighs it by 100 / 4.
    x, y = torch.tensor([[[[1.0]], [[2.0]]]]), torch.tensor([[[[4.0]], [[-2.0]]]])
    assert feature_loss([x], [y], paper_weights([2])).item() == pytest.approx(156.25)


def test_equals_reference():
    weights = paper_weights([4, 8, 5])
    ours = feature_loss(features(), features(seed=1), weights)
    assert torch.allclose(ours, feature_loss_ref(features(), features(seed=1), weights), rtol=1e-13)


def test_gradcheck_and_constant_targets():
    inputs = [f.requires_grad_() for f in features()]
    targets = [f.requires_grad_() for f in features(seed=1)]
    assert torch.autograd.gradcheck(lambda *f: feature_loss(f, targets, (1.0, 2.0, 3.0)), inputs)
    feature_loss(inputs, targets, (1.0, 1.0, 1.0)).backward()
    assert all(t.grad is None for t in targets)


def test_half_precision_features_accumulate_in_float32():
    big = [torch.full((1, 64, 64, 64), 256.0, dtype=torch.bfloat16)]
    none = [torch.zeros_like(big[0])]
    loss = feature_loss(big, none, (1.0,))
    assert loss.dtype == torch.float32
    assert loss.item() == 256**2 / 2


def test_compiled_in_one_graph():
    inputs = [f.float() for f in features()]
    targets = [f.float() for f in features(seed=1)]
    compiled = torch.compile(lambda f, t: feature_loss(f, t, (1.0, 2.0, 3.0)), fullgraph=True)
    assert torch.allclose(compiled(inputs, targets), feature_loss(inputs, targets, (1.0, 2.0, 3.0)))


def test_refuses_lists_that_do_not_match():
    with pytest.raises(ValueError, match="got 3, 3 and 2"):
        feature_loss(features(), features(), (1.0, 1.0))
    with pytest.raises(ValueError, match="got 0, 0 and 0"):
        feature_loss([], [], ())
    with pytest.raises(ValueError, match="equal shapes"):
        feature_loss(features()[:1], features()[1:2], (1.0,))
