"""The optimisers as drop-in for torch's own, and their clipping."""

import copy
import pickle

import pytest
import torch

from fastvae.models import Critic
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


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda o: pickle.loads(pickle.dumps(o))], ids=["deepcopy", "pickle"])
@pytest.mark.parametrize("name", PAIRS)
def test_copies_go_on_alike(name, copied):
    params = parameters()
    optimizer = PAIRS[name][0](params, clip=0.05)
    run(optimizer, params, 3)
    twin = copied(optimizer)
    theirs = twin.param_groups[0]["params"]
    assert not any(p is q for p, q in zip(params, theirs, strict=True))
    run(optimizer, params, 2, seed=3)
    run(twin, theirs, 2, seed=3)
    for p, q in zip(params, theirs, strict=True):
        assert torch.equal(p, q) and p.abs().max() <= 0.05


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


@pytest.mark.parametrize("name", PAIRS)
def test_a_learning_rate_in_a_tensor_is_followed(name):
    optimizer = {"adam": ClippedAdam, "rmsprop": ClippedRMSprop}[name]
    params, expected = parameters(), parameters()
    lr, reference = torch.tensor(1e-2), optimizer(expected, lr=1e-2)
    ours = optimizer(params, lr=lr)
    for value in (1e-2, 1e-3):
        lr.fill_(value)
        reference.param_groups[0]["lr"] = value
        run(ours, params, 1)
        run(reference, expected, 1)
    for p, q in zip(params, expected, strict=True):
        assert torch.allclose(p, q, rtol=1e-6, atol=1e-7)


def test_torchs_schedulers_write_into_the_tensor():
    params, lr = parameters(), torch.tensor(1e-2)
    optimizer = ClippedAdam(params, lr=lr)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
    run(optimizer, params, 1)
    scheduler.step()
    assert optimizer.param_groups[0]["lr"] is lr and lr.item() == pytest.approx(5e-3)


def test_loading_writes_into_what_is_there():
    """The tensors that a captured step knows are those that hold the loaded numbers."""
    params, lr = parameters(), torch.tensor(1e-2)
    optimizer, other = ClippedAdam(params, lr=lr), PAIRS["adam"][1](parameters())
    run(optimizer, params, 3)
    run(other, other.param_groups[0]["params"], 1)
    known = [dict(optimizer.state[p]) for p in params]
    optimizer.load_state_dict(other.state_dict())
    for p, q, before in zip(params, other.param_groups[0]["params"], known, strict=True):
        assert all(optimizer.state[p][k] is before[k] for k in before)
        assert all(torch.equal(before[k], other.state[q][k]) for k in before)
    optimizer.load_state_dict(ClippedAdam(parameters(), lr=1e-3).state_dict())
    for p, before in zip(params, known, strict=True):
        assert all(optimizer.state[p][k] is value and not value.any() for k, value in before.items())
    assert optimizer.param_groups[0]["lr"] is lr and lr.item() == pytest.approx(1e-3)


def test_a_saved_tensor_becomes_the_learning_rate():
    saved = ClippedAdam(parameters(), lr=torch.tensor(1e-3)).state_dict()
    optimizer = ClippedAdam(parameters(), lr=1e-2)
    optimizer.load_state_dict(saved)
    lr = optimizer.param_groups[0]["lr"]
    assert lr.item() == pytest.approx(1e-3) and lr is not saved["param_groups"][0]["lr"]


@pytest.mark.parametrize("optimizer", [ClippedAdam, ClippedRMSprop])
def test_a_zero_gate_skips_the_step_of_every_group(optimizer):
    params, expected = parameters(), parameters()
    ours = optimizer([{"params": params[:1], "clip": 0.05}, {"params": params[1:]}])
    reference = optimizer([{"params": expected[:1], "clip": 0.05}, {"params": expected[1:]}])
    generator = torch.Generator().manual_seed(2)
    for gate in (0.0, 1.0, 0.0, float("nan")):  # the first one makes the state, of zeros
        for p, q in zip(params, expected, strict=True):
            p.grad = q.grad = torch.empty_like(p).copy_(torch.randn(p.shape, generator=generator))
        ours.step(gate=torch.tensor(gate))
        if gate != 0:
            reference.step()
    for p, q in zip(params, expected, strict=True):
        assert torch.equal(p, q)
        assert all(torch.equal(value, reference.state[q][name]) for name, value in ours.state[p].items())
        assert ours.state[p]["step"] == 2


@pytest.mark.parametrize("optimizer", [ClippedAdam, ClippedRMSprop])
def test_a_group_of_several_dtypes(optimizer):
    params = [torch.nn.Parameter(torch.ones(3, dtype=d)) for d in (torch.float32, torch.float64, torch.float32)]
    run(optimizer(params, clip=0.5), params, 1)
    assert all((p == 0.5).all() for p in params)


def test_refuses_numbers_out_of_range_and_foreign_states():
    with pytest.raises(ValueError, match="lr > 0"):
        ClippedAdam(parameters(), lr=0.0)
    with pytest.raises(ValueError, match="0-D tensor"):
        ClippedAdam(parameters(), lr=torch.ones(1))
    with pytest.raises(ValueError, match="clip > 0"):
        ClippedRMSprop(parameters(), clip=-1.0)
    with pytest.raises(ValueError, match="clip > 0"):
        ClippedAdam([{"params": parameters(), "clip": 0.0}])
    with pytest.raises(ValueError, match="betas"):
        ClippedAdam(parameters(), betas=(0.5, 1.0))
    with pytest.raises(ValueError, match="alpha"):
        ClippedRMSprop(parameters(), alpha=1.0)
    decayed = torch.optim.Adam(parameters(), weight_decay=0.1)
    with pytest.raises(ValueError, match="weight_decay"):
        ClippedAdam(parameters()).load_state_dict(decayed.state_dict())


def critic_parameters():
    torch.manual_seed(0)
    return list(Critic().to("cuda", memory_format=torch.channels_last).parameters())


@pytest.mark.gpu
@pytest.mark.parametrize("name", PAIRS)
def test_against_torchs_fused_update_and_clamp(name):
    params, expected = critic_parameters(), critic_parameters()
    optimizer = PAIRS[name][0](params, clip=0.01)
    reference = {
        "adam": lambda p: torch.optim.Adam(p, lr=1e-2, betas=(0.5, 0.999), fused=True),
        "rmsprop": lambda p: torch.optim.RMSprop(p, lr=1e-2, foreach=True),
    }[name](expected)
    for _ in range(5):
        for p, q in zip(params, expected, strict=True):
            p.grad = torch.randn_like(p)
            q.grad = p.grad.clone()
        optimizer.step()
        reference.step()
        with torch.no_grad():
            torch._foreach_clamp_min_(expected, -0.01)
            torch._foreach_clamp_max_(expected, 0.01)
    for p, q in zip(params, expected, strict=True):
        assert torch.allclose(p, q, rtol=1e-4, atol=1e-7)


@pytest.mark.gpu
@pytest.mark.parametrize("optimizer", [ClippedAdam, ClippedRMSprop])
def test_a_captured_step(optimizer):
    """Backward pass and update in one graph, the learning rate changed between replays, then a state loaded."""
    params, expected = critic_parameters(), critic_parameters()
    lr = torch.tensor(1e-3, device="cuda")
    ours, eager = optimizer(params, lr=lr, clip=0.01), optimizer(expected, lr=1e-3, clip=0.01)
    slopes = [torch.randn_like(p) for p in params]  # the gradients, with no rounding in between

    def step(update, params):
        sum((p * s).sum() for p, s in zip(params, slopes, strict=True)).backward()
        update.step()
        update.zero_grad()

    stream, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step(ours, params)
    torch.cuda.current_stream().wait_stream(stream)
    for _ in range(3):
        step(eager, expected)
    with torch.cuda.graph(graph):
        step(ours, params)
    for rate in (1e-3, 5e-4, 2e-3):
        lr.fill_(rate)
        eager.param_groups[0]["lr"] = rate
        for s in slopes:
            s.normal_()
        graph.replay()
        step(eager, expected)
    ours.load_state_dict(optimizer(critic_parameters()).state_dict())
    ours.load_state_dict(eager.state_dict())
    graph.replay()
    step(eager, expected)
    for p, q in zip(params, expected, strict=True):
        assert torch.equal(p, q)
        assert ours.state[p]["step"].item() == eager.state[q]["step"].item() == 7


@pytest.mark.gpu
def test_the_first_step_is_not_captured():
    p = torch.nn.Parameter(torch.ones(3, device="cuda"))
    p.grad = torch.ones_like(p)
    with pytest.raises(RuntimeError, match="before the first captured"), torch.cuda.graph(torch.cuda.CUDAGraph()):
        ClippedAdam([p]).step()


@pytest.mark.gpu
def test_torchs_own_class_goes_on_without_a_wait():
    p, q = (torch.nn.Parameter(torch.ones(3, device="cuda")) for _ in range(2))
    p.grad = q.grad = torch.ones_like(p)
    ours, theirs = ClippedAdam([p]), torch.optim.Adam([q])
    ours.step()
    theirs.load_state_dict(ours.state_dict())
    assert theirs.param_groups[0]["capturable"] and theirs.state[q]["step"].is_cuda
    theirs.step()
    ours.load_state_dict(theirs.state_dict())
    assert ours.state[p]["step"].item() == 2


@pytest.mark.parametrize("name", PAIRS)
def test_torchs_state_leaves_each_groups_clip_alone(name):
    ours, theirs = PAIRS[name]
    params = parameters()
    optimizer = ours([{"params": params[:1], "clip": 0.01}, {"params": params[1:], "clip": None}])
    others = parameters()
    saved = theirs([{"params": others[:1]}, {"params": others[1:]}]).state_dict()
    optimizer.load_state_dict(saved)
    assert [group["clip"] for group in optimizer.param_groups] == [0.01, None]


@pytest.mark.parametrize(
    ("kind", "option"),
    [
        (ClippedAdam, {"maximize": True}),
        (ClippedAdam, {"weight_decay": 0.5}),
        (ClippedAdam, {"amsgrad": True}),
        (ClippedAdam, {"betas": (2, 3)}),
        (ClippedAdam, {"betas": (0.5,)}),
        (ClippedAdam, {"eps": -1}),
        (ClippedAdam, {"eps": float("nan")}),
        (ClippedRMSprop, {"momentum": 0.9}),
        (ClippedRMSprop, {"centered": True}),
        (ClippedRMSprop, {"alpha": 1.0}),
    ],
)
def test_options_of_a_group_are_held_to_their_ranges(kind, option):
    with pytest.raises(ValueError, match=next(iter(option))):
        kind([{"params": [torch.nn.Parameter(torch.zeros(2))], **option}], lr=0.1)
    kind([{"params": [torch.nn.Parameter(torch.zeros(2))], "name": "a person's own"}], lr=0.1)
