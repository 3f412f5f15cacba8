"""The Triton kernels of the update-and-clip ops: interpreted, compiled ahead of time, on a GPU where there is one."""

from contextlib import nullcontext
from functools import partial

import pytest
import torch

from bench.kernels.resources import compile_for, recorded, resources
from bench.measuring.closeness import assert_close
from fastvae.kernels import adam_clip_, address_table, force, provider, rmsprop_clip_, tables_copied_once
from fastvae.kernels.critic_update import adam_clip_ref, rmsprop_clip_ref
from fastvae.models import Critic
from tests.kernels.interpreter import interpreted

ADAM = {"betas": (0.5, 0.999), "eps": 1e-8}
RMSPROP = {"alpha": 0.99, "eps": 1e-8}
# Around one block of 1024, and the kinds of parameters that networks have.
SHAPES = [(), (1,), (3,), (1023,), (1024,), (4097,), (0,), (8, 16, 4, 4)]


class Sets:
    """The same parameter set three times: for the kernel, for plain torch in float32, for the float64 reference."""

    def __init__(self, optimizer, shapes=SHAPES, device="cpu", scale=0.02, steps_done=0):
        self.optimizer, self.t, self.device = optimizer, steps_done, device
        self.generator = torch.Generator().manual_seed(1)
        # Averages as they are after a while, so that a late step starts from something.
        late = min(steps_done, 1)
        self.ours = []
        for shape in shapes:
            p, m = self.random(shape, scale), self.random(shape, late)
            v = m**2 + 0.1 * late
            self.ours.append([p, m, v] if optimizer == "adam" else [p, v])
        self.plain = [[t.clone() for t in each] for each in self.ours]
        self.exact = [[t.double() for t in each] for each in self.ours]
        # What each number is a sum of, in absolute values: for their rounding errors, should it cancel.
        self.terms = [[t.abs() for t in each] for each in self.exact]
        self.steps = [[torch.full((), float(steps_done), device=device) for _ in shapes] for _ in range(2)]

    def random(self, shape, scale):
        x = torch.randn(shape, generator=self.generator).to(self.device) * scale
        return x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x

    def gradients(self):
        # Of many magnitudes, down to those beside which eps counts.
        return [self.random(each[0].shape, 10.0 ** -(i % 9)) for i, each in enumerate(self.ours)]

    def update(self, grads, *, lr, clip, gate=None, plainly=False):
        columns = [list(column) for column in zip(*(self.plain if plainly else self.ours), strict=True)]
        update, decays = (adam_clip_, ADAM) if self.optimizer == "adam" else (rmsprop_clip_, RMSPROP)
        update(columns[0], grads, *columns[1:], self.steps[plainly], lr=lr, clip=clip, gate=gate, **decays)

    def update_exactly(self, grads, *, lr, clip):
        for each, terms, g in zip(self.exact, self.terms, grads, strict=True):
            before, g = each[0], g.double()
            if self.optimizer == "adam":
                each[:] = adam_clip_ref(before, g, *each[1:], self.t, lr=lr, clip=clip, **ADAM)
                terms[1] = ADAM["betas"][0] * terms[1] + (1 - ADAM["betas"][0]) * g.abs()
            else:
                each[:] = rmsprop_clip_ref(before, g, *each[1:], lr=lr, clip=clip, **RMSPROP)
            terms[0] = terms[0] + (each[0] - before).abs()
            terms[-1] = each[-1]
        self.t += 1

    def check(self):
        assert all(s.item() == self.t for s in self.steps[0])
        for group in zip(self.ours, self.plain, self.exact, self.terms, strict=True):
            for ours, plain, exact, terms in zip(*group, strict=True):
                assert ours.stride() == plain.stride()
                if exact.numel():
                    assert_close(ours, plain, exact, terms)

    def bits(self):
        """Copies of all tensors, as integers, in which NaN equals itself and zero differs from minus zero."""
        return [t.clone().view(torch.int32) for each in [*self.ours, self.steps[0]] for t in each]

    def run(self, steps, *, lr=5e-4, clip=None, number=None):
        """`steps` steps of all three; lr may be a tensor that holds `number`."""
        for _ in range(steps):
            grads = self.gradients()
            self.update(grads, lr=lr, clip=clip)
            with force("aten"):
                self.update(grads, lr=lr, clip=clip, plainly=True)
            self.update_exactly(grads, lr=number or lr, clip=clip)
        self.check()


@pytest.fixture(autouse=True)
def _no_tables():
    address_table._tables.clear()


@pytest.mark.parametrize("clip", [None, 0.01])
@pytest.mark.parametrize("optimizer", ["adam", "rmsprop"])
def test_several_steps(optimizer, clip):
    sets = Sets(optimizer)
    with interpreted():
        sets.run(3, clip=clip)
    if clip:
        assert max(each[0].abs().max() for each in sets.ours if each[0].numel()) == torch.tensor(clip)


@pytest.mark.parametrize("optimizer", ["adam", "rmsprop"])
def test_gradients_and_rates_that_are_lazily_negated(optimizer):
    sets, twin = Sets(optimizer), Sets(optimizer)
    lr = torch._neg_view(torch.tensor(-0.01))
    with interpreted():
        for _ in range(2):
            sets.update([torch._neg_view(-g) for g in sets.gradients()], lr=lr, clip=None)
            twin.update(twin.gradients(), lr=0.01, clip=None)
    for ours, expected in zip(sets.ours, twin.ours, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("optimizer", ["adam", "rmsprop"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_the_learning_rate_as_a_tensor(optimizer, dtype):
    with interpreted():
        Sets(optimizer, SHAPES[:4]).run(2, lr=torch.tensor(0.01, dtype=dtype), number=0.01, clip=0.5)


@pytest.mark.parametrize("steps_done", [0, 1, 9, 692, 999, 9999, 1_000_000])
def test_bias_correction(steps_done):
    """From zero, so that a parameter is nothing but its step and no digit of it is lost."""
    with interpreted():
        Sets("adam", [(300,)], scale=0.0, steps_done=steps_done).run(1)


@pytest.mark.parametrize("betas", [(0.0, 0.9), (0.9, 0.99999), (0.99, 0.0)])
def test_other_decay_rates(betas, monkeypatch):
    monkeypatch.setitem(ADAM, "betas", betas)
    with interpreted():
        Sets("adam", [(300,)], scale=0.0).run(3)


CLOSED = torch.tensor(0.0), torch.tensor(-0.0), torch.tensor(False)
OPEN = torch.tensor(1.0), torch.tensor(True), torch.tensor(float("nan"))


def check_gates(optimizer, device):
    """Closed, nothing changes, to the bit; open, it is as if there were none."""
    sets, twin = Sets(optimizer, device=device, steps_done=3), Sets(optimizer, device=device, steps_done=3)
    sets.ours[1][0].fill_(5.0), twin.ours[1][0].fill_(5.0)  # beyond the clip
    before = sets.bits()
    for gate in CLOSED:
        sets.update([torch.full_like(p, float("nan")) for p, *_ in sets.ours], lr=0.1, clip=0.01, gate=gate.to(device))
        assert all(torch.equal(a, b) for a, b in zip(sets.bits(), before, strict=True))
    for gate in OPEN:
        grads = sets.gradients()
        sets.update(grads, lr=0.01, clip=0.01, gate=gate.to(device))
        twin.update(grads, lr=0.01, clip=0.01)
        assert all(torch.equal(a, b) for a, b in zip(sets.bits(), twin.bits(), strict=True))
    assert {s.item() for s in sets.steps[0]} == {6.0}


@pytest.mark.parametrize("optimizer", ["adam", "rmsprop"])
def test_gates(optimizer):
    with interpreted():
        check_gates(optimizer, "cpu")


def check_views(optimizer, device):
    """Tensors side by side in one buffer, most of them askew, and nothing between them touched."""
    sets = Sets(optimizer, [(1024,), (1500,), (7,)], device)
    flat, start, views = torch.zeros(12_000, device=device), 1, []
    for each in sets.ours:
        for i, t in enumerate(each):
            each[i] = flat[start : start + t.numel()].copy_(t)
            views.append(each[i])
            start += t.numel() + 1
    assert {view.data_ptr() % 16 for view in views} != {0}
    sets.run(2, clip=0.01)
    outside = torch.ones_like(flat, dtype=torch.bool)
    for view in views:
        outside[view.storage_offset() : view.storage_offset() + view.numel()] = False
    assert not flat[outside].any()


@pytest.mark.parametrize("optimizer", ["adam", "rmsprop"])
def test_views_at_any_address(optimizer):
    with interpreted():
        check_views(optimizer, "cpu")


def test_gradients_of_another_layout():
    """Copied where memory order differs; taken as they are where strides differ along axes of size 1 only."""
    sets = Sets("adam", [(4, 3, 2, 2), (5, 6, 1, 1), (1, 3, 4, 4)])
    grads = [g.contiguous() for g in sets.gradients()]
    grads[1] = grads[1].as_strided((5, 6, 1, 1), (6, 1, 1, 1))
    grads[2] = sets.gradients()[2].as_strided((1, 3, 4, 4), (1, 1, 12, 3))
    with interpreted():
        sets.update(grads, lr=0.01, clip=None)
    with force("aten"):
        sets.update(grads, lr=0.01, clip=None, plainly=True)
    sets.update_exactly(grads, lr=0.01, clip=None)
    sets.check()


@pytest.mark.filterwarnings("ignore:invalid value")
@pytest.mark.parametrize("optimizer", ["adam", "rmsprop"])
def test_nan_is_not_clipped_away(optimizer):
    sets = Sets(optimizer, [(1024,), (5,)])
    grads = [torch.ones(1024), torch.ones(5)]
    grads[0][7] = grads[1][2] = float("nan")
    grads[0][9] = float("inf")  # its square too, and inf / inf is NaN
    with interpreted():
        sets.update(grads, lr=0.1, clip=0.01)
    assert sets.ours[0][0].isnan().nonzero().flatten().tolist() == [7, 9]
    assert sets.ours[1][0].isnan().nonzero().flatten().tolist() == [2]


def test_autograd_notices():
    p = torch.ones(3, requires_grad=True)
    loss = (p**2).sum()
    with interpreted():
        rmsprop_clip_([p], [torch.ones(3)], [torch.zeros(3)], [torch.zeros(())], lr=0.1, **RMSPROP)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_the_same_from_run_to_run():
    first, second = Sets("adam"), Sets("adam")
    with interpreted():
        for sets in (first, second):
            for _ in range(2):
                sets.update(sets.gradients(), lr=0.01, clip=0.02)
    for a, b in zip(first.ours, second.ours, strict=True):
        assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("capability", [(7, 5), (8, 0), (9, 0), (12, 0)], ids=str)
def test_ahead_of_time(capability):
    """16 bytes a thread in whole blocks, nothing spilled."""
    calls = [(optimizer, gate) for optimizer in ("adam", "rmsprop") for gate in (None, torch.tensor(1.0))]
    for optimizer, gate in calls:
        loads, stores = {"adam": (4, 3), "rmsprop": (3, 2)}[optimizer]
        sets = Sets(optimizer, [(3,)])
        call = partial(sets.update, [torch.zeros(3)], lr=0.1, clip=0.1, gate=gate)
        (variant,) = recorded(capability, call)
        used = resources(variant, capability)
        assert used.spilled == 0 and used.registers <= 64
        ptx = compile_for(variant, capability).asm["ptx"]
        per_thread = 1024 // (4 * 32) // 4  # blocks of 1024, 4 warps, 4 numbers at once
        assert ptx.count("ld.global.v4") == loads * per_thread
        assert ptx.count("st.global.v4") == stores * per_thread


def critic_shapes():
    return [tuple(p.shape) for p in Critic().parameters()]


@pytest.mark.gpu
@pytest.mark.parametrize("clip", [None, 0.01])
@pytest.mark.parametrize("optimizer", ["adam", "rmsprop"])
def test_on_the_gpu(optimizer, clip):
    sets = Sets(optimizer, critic_shapes(), device="cuda")
    assert provider(f"{optimizer}_clip_", sets.ours[0][0]) == "triton"
    sets.run(5, clip=clip)
    lr = torch.tensor(0.01, device="cuda")
    Sets(optimizer, SHAPES, device="cuda").run(3, lr=lr, number=0.01, clip=clip)
    check_views(optimizer, "cuda")
    check_gates(optimizer, "cuda")


@pytest.mark.gpu
@pytest.mark.parametrize("steps_done", [0, 1, 9, 692, 999, 9999])
def test_bias_correction_on_the_gpu(steps_done):
    Sets("adam", [(3000,)], device="cuda", scale=0.0, steps_done=steps_done).run(1)


@pytest.mark.gpu
@pytest.mark.parametrize("around", [nullcontext, tables_copied_once])
@pytest.mark.parametrize("optimizer", ["adam", "rmsprop"])
def test_captured(optimizer, around):
    """Replays follow learning rate, gate, gradients and parameters, and equal eager steps bit for bit."""
    captured, eager = (Sets(optimizer, critic_shapes(), device="cuda") for _ in range(2))
    lr, gate, static = torch.tensor(0.01, device="cuda"), torch.tensor(1.0, device="cuda"), captured.gradients()
    stream, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        captured.update(static, lr=lr, clip=0.01, gate=gate)
    torch.cuda.current_stream().wait_stream(stream)
    eager.update(static, lr=0.01, clip=0.01)
    with around(), torch.cuda.graph(graph):
        # Memory that the graph uses for something else before the table is made.
        torch.ones(2**14, device="cuda").mul_(-1)
        # In the graph's own memory, as gradients are that a captured backward pass makes.
        captured.update([2 * g for g in static], lr=lr, clip=0.01, gate=gate)
    for new, opened in ((0.01, True), (0.003, False), (0.02, True), (0.03, True)):
        lr.fill_(new)
        gate.fill_(opened)
        torch._foreach_copy_(static, captured.gradients())
        graph.replay()
        if opened:
            eager.update([2 * g for g in static], lr=new, clip=0.01)
        for ours, theirs in zip(captured.ours, eager.ours, strict=True):
            assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    assert all(s.item() == 4 for s in captured.steps[0])


@pytest.mark.gpu
@pytest.mark.parametrize("provided", ["triton", "aten"])
@pytest.mark.parametrize("optimizer", ["adam", "rmsprop"])
def test_nothing_waits_for_the_gpu(optimizer, provided):
    sets, lr, gate = Sets(optimizer, critic_shapes(), device="cuda"), *torch.tensor([0.01, 1.0], device="cuda")
    grads = sets.gradients()
    sets.update(grads, lr=0.01, clip=0.01)
    moved = [g.clone() for g in grads]
    torch.cuda.set_sync_debug_mode("error")
    try:
        with force(provided):
            sets.update(moved, lr=lr, clip=0.01)
            sets.update(moved, lr=lr, clip=0.01, gate=gate)
    finally:
        torch.cuda.set_sync_debug_mode("default")
