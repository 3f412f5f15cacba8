"""`replicate_conv2d` in C++ on the CPU: values, gradients, and what is left to ATen."""

import pytest
import torch
from torch.library import opcheck

from fastvae import native_library
from fastvae.kernels import force, replicate_conv2d, winograd
from fastvae.kernels import replicate_conv_native as native
from fastvae.kernels.winograd import FEWEST_PIXELS, STATED_ERROR

pytestmark = pytest.mark.skipif(native_library.host_compiler() is None, reason="needs a C++ compiler")

# Batch, inputs, height, width, outputs: complete tiles of 4x4 and of 2x2, parts of either, one tile an image.
CASES = [
    (8, 32, 8, 8, 64),
    (128, 64, 2, 2, 32),
    (15, 64, 5, 7, 32),
    (86, 32, 3, 2, 96),
    (3, 32, 33, 6, 32),
    (33, 96, 4, 4, 96),
]


def operands(case, dtype=torch.float32):
    """x, weight, bias, residual and the gradient of the result."""
    b, c, h, w, o = case
    generator = torch.Generator().manual_seed(0)
    sizes = (b, c, h, w), (o, c, 3, 3), (o,), (b, o, h, w), (b, o, h, w)
    given = [torch.randn(size, generator=generator) for size in sizes]
    given[1] /= (9 * c) ** 0.5
    given = [t.to(dtype) for t in given]
    return [t.requires_grad_() for t in given[:4]], given[4]


def results(given, grad, slope=None):
    x, weight, bias, residual = given
    y = replicate_conv2d(x, weight, bias, residual=residual, negative_slope=slope)
    return y.detach(), *torch.autograd.grad(y, given, grad)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_values_and_gradients(case, layout, lanes):
    """As close to float64 as torch's, or as stated; in the layout of x."""
    given, grad = operands(case)
    given[0] = given[0].detach().contiguous(memory_format=layout).requires_grad_()
    assert native.runs(given[0], given[1], 1)
    found = results(given, grad)
    with force("aten"):
        assert not native.runs(given[0], given[1], 1)
        of_torch = results(given, grad)
    exact = results(*operands(case, torch.float64))
    for ours, theirs, right in zip(found, of_torch, exact, strict=True):
        error, of_theirs = ((y.double() - right).norm() / right.norm() for y in (ours, theirs))
        assert ours.shape == right.shape and error <= max(2 * of_theirs, STATED_ERROR)
        assert ours.stride() == theirs.stride()


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
def test_with_an_activation(layout):
    """Where a result is positive or not is the same, but for values that rounding moves."""
    given, grad = operands(CASES[0])
    given[0] = given[0].detach().contiguous(memory_format=layout).requires_grad_()
    found = results(given, grad, slope=0.2)
    with force("aten"):
        expected = results(given, grad, slope=0.2)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.stride() == theirs.stride() and (ours - theirs).norm() < 0.01 * theirs.norm()


def test_threads_change_no_bit():
    given, grad = operands(CASES[2])
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3, 7):
            torch.set_num_threads(threads)
            found.append(results(given, grad))
    finally:
        torch.set_num_threads(before)
    for others in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(others, found[0], strict=True))


@pytest.mark.parametrize(
    ("x", "upsample", "dtype"),
    [
        ((8, 32, 8, 8), 2, torch.float32),
        ((8, 32, 8, 8), 1, torch.float64),
        ((8, 24, 8, 8), 1, torch.float32),
        ((FEWEST_PIXELS // 64 - 1, 32, 8, 8), 1, torch.float32),
    ],
    ids=str,
)
def test_what_does_not_fit_runs_in_aten(x, upsample, dtype):
    assert not native.runs(torch.zeros(x, dtype=dtype), torch.zeros(32, x[1], 3, 3, dtype=dtype), upsample)


def test_inference_does_not_ask_for_a_compiler(monkeypatch):
    monkeypatch.setattr(winograd, "is_available", lambda: pytest.fail("asked"))
    (x, weight, bias, _), _ = operands(CASES[0])
    with torch.no_grad():
        replicate_conv2d(x, weight, bias)


def test_registered_as_torch_wants_it():
    (x, weight, *_), _ = operands(CASES[0])
    opcheck(native.forward, (x.detach(), weight.detach()))


def test_compiled():
    given, grad = operands(CASES[0])

    def convolve(x, weight, bias, residual):
        return replicate_conv2d(x, weight, bias, residual=residual, negative_slope=0.2)

    y = torch.compile(convolve, fullgraph=True, dynamic=False, backend="aot_eager")(*given)
    found = y.detach(), *torch.autograd.grad(y, given, grad)
    for a, b in zip(found, results(given, grad, slope=0.2), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-6)
