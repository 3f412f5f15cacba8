"""Batch normalisation with residual and activation: against float64, in ATen, and its kernels in the interpreter."""

import itertools

import pytest
import torch
from torch.library import opcheck
from triton.runtime import interpreter as upstream

from bench.measuring.closeness import assert_close, relative_error
from fastvae.kernels import batch_norm, batch_norm_ref, batch_norm_triton, dispatch, provider
from fastvae.kernels.batch_norm import _statistics, _sums
from tests.kernels.interpreter import interpreted

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
# [batches * B, C, H, W] and batches: one block of channels and several, a single row of pixels, one split and many.
SHAPES = [((4, 3, 5, 2), 2), ((6, 17, 3, 1), 3), ((2, 70, 1, 7), 1), ((8, 32, 9, 31), 2), ((2, 1, 3, 3), 1)]
FORMS = list(itertools.product((False, True), (None, 0.2, 0.0)))


def operands(shape, dtype, *, residual, mean=1.0, device="cpu"):
    generator = torch.Generator().manual_seed(0)

    def drawn(*size):
        return torch.randn(size, generator=generator)

    def maps():
        return drawn(*shape).to(device, dtype).contiguous(memory_format=torch.channels_last)

    channels = shape[1]
    x = (3 * maps() + mean).to(dtype).requires_grad_()
    weight, bias = ((drawn(channels) + at).to(device).requires_grad_() for at in (1, 0))
    running = [drawn(channels).to(device), drawn(channels).square().to(device) + 0.5]
    return x, weight, bias, running, maps().requires_grad_() if residual else None, maps()


def results(function, x, weight, bias, running, residual, direction, **options):
    """y, the gradients and the running statistics after a call."""
    running = [r.clone() for r in running]
    y = function(x, weight, bias, *running, residual=residual, **options)
    inputs = [t for t in (x, weight, bias, residual) if t is not None]
    return [y.detach(), *torch.autograd.grad(y, inputs, direction.to(y.dtype)), *running]


def in_float64(x, weight, bias, running, residual, direction):
    def wide(t):
        return None if t is None else t.detach().double().requires_grad_(t.requires_grad)

    return wide(x), wide(weight), wide(bias), [wide(r) for r in running], wide(residual), wide(direction)


def check(shape, batches, dtype, residual, slope, device="cpu"):
    given = operands(shape, dtype, residual=residual, device=device)
    assert provider("batch_norm", given[0]) == "triton"
    options = {"batches": batches, "negative_slope": slope}
    ours = results(batch_norm, *given, **options)
    with dispatch.force("aten"):
        exact = results(batch_norm_ref, *in_float64(*given), **options)
        plain = results(batch_norm_ref, *given, **options)
    for found, theirs, true in zip(ours, plain, exact, strict=True):
        # What adds up to a small number is as exact as its terms allow.
        terms = true.abs() + true.abs().mean() + 1 if true.dim() == 1 else None
        assert_close(found, theirs, true, terms)


@pytest.mark.parametrize(("residual", "slope"), FORMS)
@pytest.mark.parametrize(("shape", "batches"), SHAPES, ids=str)
def test_in_aten(shape, batches, residual, slope):
    given = in_float64(*operands(shape, torch.float32, residual=residual))
    options = {"batches": batches, "negative_slope": slope}
    for found, expected in zip(
        results(batch_norm, *given, **options), results(batch_norm_ref, *given, **options), strict=True
    ):
        assert relative_error(found, expected) < 1e-12


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("shape", "batches"), SHAPES, ids=str)
def test_interpreted(shape, batches, dtype):
    with interpreted():
        for residual, slope in FORMS:
            check(shape, batches, dtype, residual, slope)


def test_any_layout_interpreted():
    """Maps that are not in channels_last, and vectors that are columns of a table."""
    x, weight, bias, running, residual, direction = operands(SHAPES[0][0], torch.float32, residual=True)
    tables = [torch.stack([t.detach(), torch.full_like(t, 7.0)], 1) for t in (weight, bias, *running)]
    columns = [table[:, 0] for table in tables]
    strided = [t.detach().contiguous().requires_grad_() for t in (x, residual)]
    vectors = [t.requires_grad_() for t in columns[:2]]
    with interpreted():
        expected = results(batch_norm, x, weight, bias, running, residual, direction, batches=2, negative_slope=0.2)
        y = batch_norm(strided[0], *columns, batches=2, residual=strided[1], negative_slope=0.2)
        found = [y.detach(), *torch.autograd.grad(y, [strided[0], *vectors, strided[1]], direction), *columns[2:]]
    for ours, theirs in zip(found, expected, strict=True):
        assert torch.equal(ours, theirs)
    assert all((table[:, 1] == 7).all() for table in tables)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("shape", "batches"), [*SHAPES[:2], ((128, 32, 32, 32), 2), ((64, 256, 4, 4), 1)], ids=str)
def test_on_a_gpu(shape, batches, dtype, poisoned_memory):
    for residual, slope in ((False, 0.2), (True, 0.2), (False, None)):
        check(shape, batches, dtype, residual, slope, device="cuda")


@pytest.mark.gpu
def test_the_same_bits_in_every_run():
    """Thousands of programs end in another order each time."""
    given = operands((128, 32, 64, 64), torch.bfloat16, residual=True, device="cuda")
    first = results(batch_norm, *given, batches=2, negative_slope=0.2)
    for _ in range(200):
        again = results(batch_norm, *given, batches=2, negative_slope=0.2)
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


def test_gradients_of_every_input():
    torch.manual_seed(0)
    x, residual = (torch.randn(4, 2, 3, 2, dtype=torch.float64, requires_grad=True) for _ in range(2))
    weight, bias = (torch.randn(2, dtype=torch.float64, requires_grad=True) for _ in range(2))
    for slope in (None, 0.3):

        def f(x, weight, bias, residual, slope=slope):
            running = torch.zeros(2, 2, dtype=torch.float64)
            return batch_norm(x, weight, bias, *running, batches=2, residual=residual, negative_slope=slope)

        assert torch.autograd.gradcheck(f, (x, weight, bias, residual))


def test_a_large_mean_costs_no_digits():
    """The variance of numbers around 1000 with a deviation of 3: their squares differ by 1e-5 of themselves."""
    x, weight, bias, running, _, _ = operands((4, 8, 9, 16), torch.float32, residual=False, mean=1000.0)
    with interpreted():
        y = batch_norm(x, weight, bias, *running)
    exact = batch_norm_ref(x.double(), weight.double(), bias.double(), *torch.ones(2, 8, dtype=torch.float64))
    assert relative_error(y.detach(), exact.detach()) < 1e-5


def test_nan_stays_nan():
    x, weight, bias, running, residual, direction = operands((2, 3, 2, 2), torch.float32, residual=True)
    x = x.detach().index_fill(1, torch.tensor([1]), float("nan")).contiguous(memory_format=torch.channels_last)
    with interpreted():
        found = results(batch_norm, x.requires_grad_(), weight, bias, running, residual, direction, negative_slope=0.2)
    for tensor in (found[0], found[1]):
        assert tensor[:, 1].isnan().all() and tensor[:, [0, 2]].isfinite().all()
    for tensor in found[-2:]:
        assert tensor.isnan().tolist() == [False, True, False]


def test_the_last_program_is_found_in_any_order(monkeypatch):
    """Programs end in any order on a GPU; the result and the tickets must not depend on it."""
    given = operands((8, 70, 9, 31), torch.float32, residual=True)
    builder, last = upstream.interpreter_builder, []
    place = builder.set_grid_idx

    def from_the_end(*index):
        last.append(tuple(size - 1 - i for size, i in zip(builder.grid_dim, index, strict=True)))
        place(*last[-1])

    with interpreted():
        first = results(batch_norm, *given, batches=2, negative_slope=0.2)
        monkeypatch.setattr(builder, "set_grid_idx", from_the_end)
        second = results(batch_norm, *given, batches=2, negative_slope=0.2)
    assert last[-1] == (0, 0, 0) and len(last) > 8
    assert not any(tickets.any() for tickets in batch_norm_triton._tickets.values())
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_a_second_derivative_is_an_error():
    """Through the statistics it would be a wrong number."""
    x, weight, bias, running, _, _ = operands((4, 3, 5, 2), torch.float32, residual=False)
    (grad,) = torch.autograd.grad(batch_norm(x, weight, bias, *running).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.square().sum().backward()


@pytest.mark.parametrize("slope", [None, 0.2])
def test_opcheck(slope):
    x, weight, bias, running, residual, direction = (
        t.detach() if isinstance(t, torch.Tensor) else t for t in operands((4, 3, 5, 2), torch.float32, residual=True)
    )
    opcheck(_statistics, (x, *running, 2, 0.1, 1e-5))
    statistics = _statistics(x, *running, 2, 0.1, 1e-5)
    opcheck(_sums, (direction, x, residual, statistics, weight, bias, slope))
    opcheck(_sums, (direction, x, None, statistics, weight, bias, slope))


@pytest.mark.parametrize("residual", [False, True])
def test_compiled_it_is_the_same(residual):
    given = operands((4, 3, 5, 2), torch.float32, residual=residual)

    def call(*args, **options):
        return batch_norm(*args, batches=2, negative_slope=0.2, **options)

    compiled = torch.compile(call, fullgraph=True, backend="aot_eager")
    with dispatch.force("aten"):
        for found, expected in zip(results(compiled, *given), results(call, *given), strict=True):
            torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"batches": 3}, "3 equal batches"),
        ({"batches": 0}, "0 equal batches"),
        ({"residual": torch.zeros(1)}, "residual of x's shape"),
        ({"negative_slope": -1.0}, "negative_slope >= 0"),
        ({"negative_slope": float("nan")}, "negative_slope >= 0"),
        *(({"momentum": m}, r"momentum in \[0, 1\]") for m in (-0.1, 1.5, float("nan"), None)),
        *(({"eps": e}, "eps >= 0") for e in (-1.0, float("nan"), float("inf"))),
    ],
    ids=str,
)
def test_what_it_refuses(change, said):
    x, weight, bias, running, _, _ = operands((4, 3, 2, 2), torch.float32, residual=False)
    with pytest.raises(ValueError, match=said):
        batch_norm(x, weight, bias, *running, **change)
    with pytest.raises(ValueError, match=r"four tensors \[C\]"):
        batch_norm(x, weight[:2], bias, *running)
    with pytest.raises(ValueError, match="more than one value per channel"):
        batch_norm(x[:, :, :1, :1], weight, bias, *running, batches=4)
