"""The update-and-clip ops against their references, several steps long, and what they refuse."""

import pytest
import torch

from fastvae.kernels import adam_clip_, critic_update, force, rmsprop_clip_
from fastvae.kernels.critic_update import adam_clip_ref, cost, rmsprop_clip_ref

SHAPES = [(4, 3, 3, 3), (5,), (1, 7), ()]
ADAM = {"betas": (0.5, 0.999), "eps": 1e-8}
RMSPROP = {"alpha": 0.99, "eps": 1e-8}


def tensors(dtype=torch.float64):
    params = [torch.randn(s, dtype=dtype) * 0.05 for s in SHAPES]
    return params, *([torch.zeros_like(p) for p in params] for _ in range(2)), [torch.zeros(()) for _ in params]


@pytest.mark.parametrize("clip", [None, 0.02])
@pytest.mark.parametrize("tensor_lr", [False, True])
def test_adam(clip, tensor_lr):
    params, m, v, steps = tensors()
    lr = torch.tensor(0.01, dtype=torch.float64) if tensor_lr else 0.01
    for t in range(4):
        grads = [torch.randn_like(p) for p in params]
        expected = [
            adam_clip_ref(*each, t, lr=0.01, clip=clip, **ADAM) for each in zip(params, grads, m, v, strict=True)
        ]
        adam_clip_(params, grads, m, v, steps, lr=lr, clip=clip, **ADAM)
        for ours, theirs in zip(zip(params, m, v, strict=True), expected, strict=True):
            assert all(torch.allclose(a, b, rtol=1e-10) for a, b in zip(ours, theirs, strict=True))
        assert all(s.item() == t + 1 for s in steps)
    if clip:
        assert max(p.abs().max() for p in params) == clip


@pytest.mark.parametrize("clip", [None, 0.02])
@pytest.mark.parametrize("tensor_lr", [False, True])
def test_rmsprop(clip, tensor_lr):
    params, v, _, steps = tensors()
    lr = torch.tensor(0.01, dtype=torch.float64) if tensor_lr else 0.01
    for t in range(4):
        grads = [torch.randn_like(p) for p in params]
        expected = [
            rmsprop_clip_ref(*each, lr=0.01, clip=clip, **RMSPROP) for each in zip(params, grads, v, strict=True)
        ]
        rmsprop_clip_(params, grads, v, steps, lr=lr, clip=clip, **RMSPROP)
        for ours, theirs in zip(zip(params, v, strict=True), expected, strict=True):
            assert all(torch.allclose(a, b, rtol=1e-10) for a, b in zip(ours, theirs, strict=True))
        assert all(s.item() == t + 1 for s in steps)
    if clip:
        assert max(p.abs().max() for p in params) == clip


def test_nothing_to_update():
    adam_clip_([], [], [], [], [], lr=0.1, **ADAM)
    rmsprop_clip_([], [], [], [], lr=0.1, **RMSPROP)


def test_what_is_lazily_negated_is_not_updated_in_place():
    p, g, v = torch._neg_view(torch.ones(3)), torch.ones(3), torch.zeros(3)
    with pytest.raises(ValueError, match="no lazily negated views"):
        rmsprop_clip_([p], [g], [v], [torch.zeros(())], lr=0.1, **RMSPROP)
    with pytest.raises(ValueError, match="no lazily negated views"):
        adam_clip_([g], [g], [v], [torch._neg_view(v)], [torch.zeros(())], lr=0.1, **ADAM)


def test_nan_is_not_clipped_away():
    p, g = torch.zeros(3), torch.tensor([1.0, float("nan"), 1.0])
    adam_clip_([p], [g], [torch.zeros(3)], [torch.zeros(3)], [torch.zeros(())], lr=1.0, clip=0.1, **ADAM)
    assert p.isnan().tolist() == [False, True, False]


def test_a_gradient_in_another_layout():
    p = torch.randn(4, 3, 2, 2).contiguous(memory_format=torch.channels_last)
    g = torch.randn(4, 3, 2, 2)
    expected = rmsprop_clip_ref(p, g, torch.zeros_like(p), lr=0.1, clip=None, **RMSPROP)[0]
    rmsprop_clip_([p], [g], [torch.zeros_like(p)], [torch.zeros(())], lr=0.1, **RMSPROP)
    assert torch.allclose(p, expected)


def test_parameters_may_require_gradients():
    p = torch.nn.Parameter(torch.ones(3))
    rmsprop_clip_([p], [torch.ones(3)], [torch.zeros(3)], [torch.zeros(())], lr=0.1, **RMSPROP)
    assert p.requires_grad and (p < 1).all()


GATES = {
    "closed": torch.tensor(0.0),
    "minus zero": torch.tensor(-0.0),
    "closed, bool": torch.tensor(False),
    "open": torch.tensor(1.0),
    "open, bool": torch.tensor(True),
    "open, small": torch.tensor(1e-40, dtype=torch.float64),
    "open, NaN": torch.tensor(float("nan")),
}


def step_of(optimizer, params, grads, m, v, steps, gate):
    if optimizer == "adam":
        adam_clip_(params, grads, m, v, steps, lr=0.01, clip=0.02, gate=gate, **ADAM)
    else:
        rmsprop_clip_(params, grads, v, steps, lr=0.01, clip=0.02, gate=gate, **RMSPROP)


@pytest.mark.parametrize("gate", GATES.values(), ids=GATES)
@pytest.mark.parametrize("optimizer", ["adam", "rmsprop"])
def test_a_closed_gate_changes_nothing_and_an_open_one_is_none(optimizer, gate):
    columns = tensors()
    columns[0][0].fill_(0.5)  # beyond the clip, which a closed gate closes too
    expected = [[t.clone() for t in column] for column in columns]
    grads = [torch.randn_like(p) for p in columns[0]]
    if gate != 0:
        step_of(optimizer, expected[0], grads, *expected[1:], None)
    step_of(optimizer, columns[0], grads, *columns[1:], gate)
    for ours, theirs in zip(columns, expected, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_the_references_know_the_gate():
    each = [torch.randn(3) for _ in range(4)]
    assert all(
        a is b
        for a, b in zip(adam_clip_ref(*each, 2, lr=0.1, clip=0.1, gate=0, **ADAM), (each[0], *each[2:]), strict=True)
    )
    assert all(
        a is b for a, b in zip(rmsprop_clip_ref(*each[:3], lr=0.1, clip=0.1, gate=0, **RMSPROP), each[::2], strict=True)
    )


@pytest.mark.parametrize(("gate", "value"), [(0.0, 1.0), (-0.0, 1.0), (0.5, 3.0), (float("nan"), 3.0)])
def test_what_the_host_cannot_know_is_undone(gate, value):
    """As on a GPU without Triton, where asking for the gate would be a wait."""
    changed = [torch.nn.Parameter(torch.ones(2)), torch.tensor(1.0)]
    with torch.no_grad():
        critic_update._undone_if_zero(torch.tensor(gate), lambda: [t.fill_(3.0) for t in changed], changed)
    assert all((t == value).all() for t in changed)


@pytest.mark.parametrize("gate", [None, torch.tensor(1.0), torch.tensor(False)], ids=str)
@pytest.mark.parametrize("tensor_lr", [False, True])
def test_opcheck(tensor_lr, gate):
    lr = (0.0, torch.tensor(0.1)) if tensor_lr else (0.1, None)
    params, m, v, steps = tensors(torch.float32)
    grads = [torch.randn_like(p) for p in params]
    torch.library.opcheck(torch.ops.fastvae.adam_clip_, (params, grads, m, v, steps, gate, *lr, 0.5, 0.999, 1e-8, 0.02))
    torch.library.opcheck(torch.ops.fastvae.rmsprop_clip_, (params, grads, v, steps, gate, *lr, 0.99, 1e-8, None))


@pytest.mark.parametrize("gate", [None, 0.0, 1.0], ids=str)
def test_compiled_is_eager(gate):
    def update(params, grads, m, v, steps, lr):
        gated = None if gate is None else lr.new_full((), gate)
        adam_clip_(params, [2 * g for g in grads], m, v, steps, lr=lr, clip=0.02, gate=gated, **ADAM)
        rmsprop_clip_(params, grads, v, steps, lr=0.01, gate=gated, **RMSPROP)

    eager = (tensors(torch.float32), torch.tensor(0.01))
    compiled = ([[t.clone() for t in group] for group in eager[0]], torch.tensor(0.01))
    for function, ((params, m, v, steps), lr) in ((update, eager), (torch.compile(update, fullgraph=True), compiled)):
        generator = torch.Generator().manual_seed(3)
        for _ in range(2):
            grads = [torch.randn(p.shape, generator=generator) for p in params]
            function(params, grads, m, v, steps, lr)
    for ours, theirs in zip(compiled[0], eager[0], strict=True):
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def one(shape=(4, 3), dtype=torch.float32):
    return {"params": [torch.zeros(shape, dtype=dtype)], "grads": [torch.zeros(shape, dtype=dtype)]} | {
        name: [torch.zeros(shape, dtype=dtype)] for name in ("exp_avgs", "exp_avg_sqs")
    }


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"exp_avgs": [torch.zeros(3, 4).t()]}, "laid out as its parameter"),
        ({"exp_avg_sqs": [torch.zeros(4, 3).double()]}, "laid out as its parameter"),
        ({"grads": [torch.zeros(4, 3).half()]}, "each gradient as its parameter, dense .*float16"),
        ({"grads": [torch.zeros(3, 4)]}, "each gradient as its parameter"),
        ({"grads": [torch.zeros(4, 3).to_sparse()]}, "got sparse_coo"),
        ({"grads": []}, "argument 2 is shorter"),
        ({"params": [torch.zeros(4, 6)[:, ::2]]}, "without gaps or overlaps"),
        ({"params": [torch.zeros(1, 3).expand(4, 3)]}, "without gaps or overlaps"),
        ({"params": [torch.zeros(4, 3).int()]}, "floating-point dtype"),
        ({"lr": torch.zeros(1)}, "0-D tensor on cpu"),
        ({"lr": torch.zeros((), device="meta")}, "0-D tensor on cpu; got .* on meta"),
        ({"lr": -0.1}, "lr >= 0"),
        ({"lr": float("nan")}, "lr >= 0"),
        ({"eps": 0.0}, "eps > 0"),
        ({"betas": (0.5, 1.0)}, "decay rates"),
        ({"clip": 0.0}, "clip > 0"),
        ({"steps": [torch.zeros((), dtype=torch.int64)]}, "each step as a 0-D float32"),
        ({"steps": []}, "argument 3 is shorter"),
        ({"gate": 0}, "gate as .* or None; got 0"),
        ({"gate": torch.ones(1)}, "gate as a 0-D real or bool tensor on cpu"),
        ({"gate": torch.ones((), device="meta")}, "gate as .* on cpu, or None; got .* on meta"),
        ({"gate": torch.ones((), dtype=torch.complex64)}, "gate as .* got .*complex64"),
    ],
    ids=lambda x: x if isinstance(x, str) else next(iter(x)),
)
def test_refusals(changed, message):
    with pytest.raises(ValueError, match=message):
        adam_clip_(**{**one(), "steps": [torch.zeros(())], "lr": 0.1, **ADAM, **changed})


def test_refuses_a_set_of_several_dtypes_or_devices():
    for other in (torch.zeros(2).double(), torch.zeros(2, device="meta")):
        params = [torch.zeros(2), other]
        with pytest.raises(ValueError, match="one device and one floating-point dtype"):
            rmsprop_clip_(params, params, params, [torch.zeros(())] * 2, lr=0.1, **RMSPROP)


def test_the_provider_decides():
    p, launched = one(), []
    with force("triton", capability=(9, 0), launch=lambda kernel, *_: launched.append(kernel.__name__)):
        adam_clip_(**p, steps=[torch.zeros(())], lr=0.1, **ADAM)
        rmsprop_clip_(p["params"], p["grads"], p["exp_avgs"], [torch.zeros(())], lr=0.1, **RMSPROP)
    assert launched == ["adam_clip_kernel", "rmsprop_clip_kernel"]


def test_cost():
    assert cost(1000, optimizer="adam").bytes == 28_000 and cost(1000, optimizer="rmsprop").bytes == 20_000
    with pytest.raises(ValueError, match="adam, rmsprop"):
        cost(1, optimizer="sgd")
