"""The update-and-clip ops against their references, several steps long."""

import pytest
import torch
from fastvae.kernels.critic_update import adam_clip_, adam_clip_ref, rmsprop_clip_, rmsprop_clip_ref

SHAPES = [(4, 3, 3, 3), (5,), (1, 7)]


@pytest.mark.parametrize("clip", [None, 0.02])
@pytest.mark.parametrize("tensor_lr", [False, True])
def test_adam(clip, tensor_lr):
    params = [torch.randn(s, dtype=torch.float64) * 0.05 for s in SHAPES]
    m, v = ([torch.zeros_like(p) for p in params] for _ in range(2))
    steps = [torch.zeros(()) for _ in params]
    lr = torch.tensor(0.01) if tensor_lr else 0.01
    for t in range(4):
        grads = [torch.randn_like(p) for p in params]
        expected = [
            adam_clip_ref(p, g, a, b, t, lr=0.01, betas=(0.5, 0.999), eps=1e-8, clip=clip)
            for p, g, a, b in zip(params, grads, m, v, strict=True)
        ]
        adam_clip_(params, grads, m, v, steps, lr=lr, betas=(0.5, 0.999), eps=1e-8, clip=clip)
        for ours, theirs in zip(params, expected, strict=True):
            assert torch.allclose(ours, theirs, rtol=1e-6 if tensor_lr else 1e-10)
        assert all(s.item() == t + 1 for s in steps)
    if clip:
        assert max(p.abs().max() for p in params) == clip


@pytest.mark.parametrize("clip", [None, 0.02])
def test_rmsprop(clip):
    params = [torch.randn(s, dtype=torch.float64) * 0.05 for s in SHAPES]
    v = [torch.zeros_like(p) for p in params]
    for _ in range(4):
        grads = [torch.randn_like(p) for p in params]
        expected = [
            rmsprop_clip_ref(p, g, a, lr=0.01, alpha=0.99, eps=1e-8, clip=clip)
            for p, g, a in zip(params, grads, v, strict=True)
        ]
        rmsprop_clip_(params, grads, v, lr=0.01, alpha=0.99, eps=1e-8, clip=clip)
        for ours, theirs in zip(params, expected, strict=True):
            assert torch.allclose(ours, theirs, rtol=1e-10)
    if clip:
        assert max(p.abs().max() for p in params) == clip


def test_nothing_to_update():
    adam_clip_([], [], [], [], [], lr=0.1, betas=(0.5, 0.9), eps=1e-8)
    rmsprop_clip_([], [], [], lr=0.1, alpha=0.9, eps=1e-8)


def test_refuses_state_in_another_layout():
    p = torch.randn(4, 3, 2, 2).contiguous(memory_format=torch.channels_last)
    m, v = torch.zeros(4, 3, 2, 2), torch.zeros_like(p)
    with pytest.raises(ValueError, match="laid out as its parameter"):
        adam_clip_([p], [p], [m], [v], [torch.zeros(())], lr=0.1, betas=(0.5, 0.9), eps=1e-8)
