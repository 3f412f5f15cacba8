"""The optimisers as drop-in for torch's own, and their clipping."""

import pytest
import torch

from fastvae.optim import ClippedAdam, ClippedRMSprop

PAIRS = {
    "adam": (
        lambda p, **k: ClippedAdam(p, lr=1e-2, **k),
        lambda p: torch.optim.Adam(p, lr=1e-2, betas=(0.5, 0.999)),
    ),
    "rmsprop": (lambda p, **k: ClippedRMSprop(p, lr=1e-2, **k), lambda p: torch.optim.RMSprop(p, lr=1e-2)),
}


def parameters():
    generator = torch.Generator().manual_seed(1)
    # channels_last, because a fused update that walks memory would mix up entries of unlike layouts.
    conv = torch.randn(4, 3, 3, 3, generator=generator).contiguous(memory_format=torch.channels_last)
    return [torch.nn.Parameter(conv), torch.nn.Parameter(torch.randn(7, generator=generator))]


def run(optimizer, params, steps, seed=2):
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        for p in params:
            p.grad = torch.empty_like(p).copy_(torch.randn(p.shape, generator=generator))
        optimizer.step()


@pytest.mark.parametrize("name", PAIRS)
def test_without_clip_it_is_torchs_own(name):
    (ours, theirs), params, expected = PAIRS[name], parameters(), parameters()
    run(ours(params), params, 5)
    run(theirs(expected), expected, 5)
    for p, q in zip(params, expected, strict=True):
        assert torch.allclose(p, q, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", PAIRS)
def test_state_dicts_are_interchangeable(name):
    ours, theirs = PAIRS[name]
    for first, second in ((ours, theirs), (theirs, ours)):
        params, straight = parameters(), parameters()
        optimizer = first(params)
        run(optimizer, params, 2)
        other = second(params)
        other.load_state_dict(optimizer.state_dict())
        run(other, params, 2, seed=3)
        reference = theirs(straight)
        run(reference, straight, 2)
        run(reference, straight, 2, seed=3)
        for p, q in zip(params, straight, strict=True):
            assert torch.allclose(p, q, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", PAIRS)
def test_a_state_saved_in_another_memory_format_is_the_same_state(name):
    params, straight = parameters(), parameters()
    optimizer, reference = PAIRS[name][0](params), PAIRS[name][0](straight)
    run(optimizer, params, 2)
    run(reference, straight, 4)
    saved = optimizer.state_dict()
    saved["state"] = {i: {k: v.contiguous() for k, v in s.items()} for i, s in saved["state"].items()}
    other = PAIRS[name][0](params)
    other.load_state_dict(saved)
    generator = torch.Generator().manual_seed(2)
    gradients = [[torch.randn(p.shape, generator=generator) for p in params] for _ in range(4)]
    for grads in gradients[2:]:
        for p, g in zip(params, grads, strict=True):
            p.grad = g  # contiguous beside a channels_last parameter
        other.step()
    for p, q in zip(params, straight, strict=True):
        assert torch.equal(p, q)


@pytest.mark.parametrize("name", PAIRS)
def test_clips_per_group(name):
    params = parameters()
    optimizer = PAIRS[name][0]([{"params": params[:1], "clip": 0.01}, {"params": params[1:], "clip": None}])
    run(optimizer, params, 1)
    assert params[0].abs().max().item() == pytest.approx(0.01)
    assert params[1].abs().max() > 0.1


@pytest.mark.parametrize("optimizer", [ClippedAdam, ClippedRMSprop])
def test_skips_parameters_without_gradient(optimizer):
    params = parameters()
    before = [p.detach().clone() for p in params]
    optimizer(params).step()
    params[0].grad = torch.ones_like(params[0])
    optimizer(params).step()
    assert not torch.equal(params[0], before[0]) and torch.equal(params[1], before[1])


def test_refuses_numbers_out_of_range_and_foreign_states():
    with pytest.raises(ValueError, match="lr > 0"):
        ClippedAdam(parameters(), lr=0.0)
    with pytest.raises(ValueError, match="clip > 0"):
        ClippedRMSprop(parameters(), clip=-1.0)
    with pytest.raises(ValueError, match="betas"):
        ClippedAdam(parameters(), betas=(0.5, 1.0))
    with pytest.raises(ValueError, match="alpha"):
        ClippedRMSprop(parameters(), alpha=1.0)
    decayed = torch.optim.Adam(parameters(), weight_decay=0.1)
    with pytest.raises(ValueError, match="weight_decay"):
        ClippedAdam(parameters()).load_state_dict(decayed.state_dict())
