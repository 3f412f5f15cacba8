"""`conv3x3` in C++ on the CPU: values, both gradients, threads, and what is left to torch."""

import pytest
import torch
import torch.nn.functional as F
from torch.library import opcheck

from fastvae import native_library
from fastvae.kernels import conv3x3, force, provider, winograd
from fastvae.kernels.conv3x3 import FEWEST_PIXELS, _forward, _gradients, fits
from fastvae.kernels.winograd import STATED_ERROR

pytestmark = pytest.mark.skipif(native_library.host_compiler() is None, reason="needs a C++ compiler")

# Batch, inputs, height, width, outputs: complete tiles of 4x4 and of 2x2, parts of either, one tile an image, tiles for
# several turns.
CASES = [
    (8, 32, 8, 8, 64),
    (128, 64, 2, 2, 32),
    (15, 64, 5, 7, 32),
    (86, 32, 3, 2, 96),
    (3, 32, 33, 6, 32),
    (5, 64, 4, 28, 128),
    (33, 96, 4, 4, 96),
]


def operands(case):
    b, c, h, w, o = case
    generator = torch.Generator().manual_seed(0)
    sizes = (b, c, h, w), (o, c, 3, 3), (b, o, h, w)
    x, weight, grad = (torch.randn(size, generator=generator) for size in sizes)
    x, grad = (t.contiguous(memory_format=torch.channels_last) for t in (x, grad))
    return x.requires_grad_(), (weight / (9 * c) ** 0.5).requires_grad_(), grad


def results(x, weight, grad):
    """y, dL/dx and dL/dweight."""
    y = conv3x3(x, weight)
    return y.detach(), *torch.autograd.grad(y, (x, weight), grad)


@pytest.fixture(params=["this processor's", 4], ids=lambda lanes: f"{lanes} lanes")
def lanes(request, monkeypatch):
    """Vectors as this processor has them, and as the narrowest has."""
    if request.param == 4:
        loaded = native_library.library(winograd.SOURCES, ("-O1", "-DFASTVAE_LANES=4"))
        monkeypatch.setattr(winograd, "_library", lambda: loaded)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_values_and_gradients(case, lanes):
    """As close to float64 as torch's, or as stated."""
    x, weight, grad = operands(case)
    assert fits(x, weight) and provider("conv3x3", x) == "native"
    found = results(x, weight, grad)
    with force("aten"):
        of_torch = results(x, weight, grad)
        exact = results(x.detach().double().requires_grad_(), weight.detach().double().requires_grad_(), grad.double())
    for ours, theirs, right in zip(found, of_torch, exact, strict=True):
        error, of_theirs = ((y.double() - right).norm() / right.norm() for y in (ours, theirs))
        assert ours.shape == right.shape and 0 < error <= max(2 * of_theirs, STATED_ERROR)
    assert found[0].is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
def test_any_layout(layout):
    x, weight, grad = operands(CASES[2])
    expected = results(x, weight, grad)
    there = [t.detach().contiguous(memory_format=layout) for t in (x, weight, grad)]
    found = results(there[0].requires_grad_(), there[1].requires_grad_(), there[2])
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-5)
    assert found[2].stride() == there[1].stride()  # Adam is fast for gradients laid out as their parameters


def test_a_gradient_that_is_one_number_everywhere():
    x, weight, _ = operands(CASES[0])
    ones = torch.ones(()).expand(conv3x3(x, weight).shape)
    for a, b in zip(results(x, weight, ones), results(x, weight, ones.contiguous()), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("case", [CASES[0], CASES[2], CASES[6]], ids=str)
def test_threads_change_no_bit(case):
    x, weight, grad = operands(case)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3, 7):
            torch.set_num_threads(threads)
            found.append(results(x, weight, grad))
    finally:
        torch.set_num_threads(before)
    for others in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(others, found[0], strict=True))


@pytest.mark.parametrize("wanted", ["x", "weight"])
def test_one_gradient_alone(wanted, monkeypatch):
    x, weight, grad = operands(CASES[0])
    _, dx, dw = results(x, weight, grad)
    given = {"x": x, "weight": weight}
    other = {"x": weight, "weight": x}[wanted].requires_grad_(False)
    with monkeypatch.context() as without:
        if wanted == "x":
            without.setattr(winograd, "weight_gradient", None)
        (found,) = torch.autograd.grad(conv3x3(x, weight), given[wanted], grad)
    assert other.grad is None and torch.equal(found, {"x": dx, "weight": dw}[wanted])


def test_an_image_that_is_not_a_number_makes_the_gradient_none():
    x, weight, grad = operands(CASES[0])
    with torch.no_grad():
        x[0, 3, 0, 0] = torch.nan
    y, _, dw = results(x, weight, grad)
    assert y[0, :, :2, :2].isnan().all() and not y[1:].isnan().any()
    assert dw[:, 3].isnan().all() and not dw[:, 4].isnan().any()


def test_what_changes_in_place_counts():
    x, weight, grad = operands(CASES[0])
    before = results(x, weight, grad)
    with torch.no_grad():
        weight.mul_(2)
    after = results(x, weight, grad)
    torch.testing.assert_close(after[0], 2 * before[0])
    torch.testing.assert_close(after[1], 2 * before[1])
    assert torch.equal(after[2], before[2])


@pytest.mark.parametrize(
    ("x", "weight", "dtype"),
    [
        ((8, 3, 8, 8), (32, 3, 3, 3), torch.float32),
        ((8, 32, 8, 8), (33, 32, 3, 3), torch.float32),
        ((8, 32, 8, 8), (32, 32, 3, 3), torch.float64),
        ((8, 32, 8, 8), (32, 32, 3, 3), torch.bfloat16),
        ((64, 32, 1, 8), (32, 32, 3, 3), torch.float32),
        ((FEWEST_PIXELS // 16 - 1, 32, 4, 4), (32, 32, 3, 3), torch.float32),
    ],
    ids=str,
)
def test_what_does_not_fit_runs_in_torch(x, weight, dtype):
    generator = torch.Generator().manual_seed(0)
    x, weight = (torch.randn(size, generator=generator).to(dtype).requires_grad_() for size in (x, weight))
    assert not fits(x, weight)
    assert torch.equal(conv3x3(x, weight), F.conv2d(x, weight, padding=1))


def test_without_gradients_and_under_autocast_it_is_torchs():
    """Inference transforms no filters, and compiles nothing."""
    x, weight, _ = operands(CASES[0])
    with torch.no_grad():
        assert torch.equal(conv3x3(x, weight), F.conv2d(x, weight, padding=1))
    assert not fits(x.detach(), weight.detach())
    with torch.autocast("cpu", torch.bfloat16):
        y = conv3x3(x, weight)
        assert y.dtype == torch.bfloat16 and torch.equal(y, F.conv2d(x, weight, padding=1))


def test_without_a_compiler_it_is_torchs(monkeypatch):
    monkeypatch.setattr(winograd, "is_available", lambda: False)
    x, weight, _ = operands(CASES[0])
    assert provider("conv3x3", x) == "aten"
    assert torch.equal(conv3x3(x, weight), F.conv2d(x, weight, padding=1))


def test_transforms_of_torch_take_it_apart():
    x, weight, _ = operands(CASES[0])
    x, weight = x.detach(), weight.detach()
    found = torch.func.grad(lambda w: conv3x3(x, w).square().sum())(weight)
    expected = torch.func.grad(lambda w: F.conv2d(x, w, padding=1).square().sum())(weight)
    torch.testing.assert_close(found, expected)


def test_registered_as_torch_wants_it():
    x, weight, grad = operands(CASES[0])
    opcheck(_forward, (x, weight))
    opcheck(_gradients, (grad, x.detach(), weight.detach(), True, True))
    opcheck(_gradients, (grad, x.detach(), weight.detach(), False, True))


def test_compiled():
    x, weight, grad = operands(CASES[0])
    compiled = torch.compile(conv3x3, fullgraph=True, dynamic=False, backend="aot_eager")
    y = compiled(x, weight)
    found = y.detach(), *torch.autograd.grad(y, (x, weight), grad)
    assert all(torch.equal(a, b) for a, b in zip(found, results(x, weight, grad), strict=True))


@pytest.mark.parametrize("weight", [(32, 16, 3, 3), (32, 32, 1, 1), (32, 32, 3)], ids=str)
def test_shapes_that_do_not_fit_together(weight):
    with pytest.raises(ValueError, match=r"conv3x3 expects x \[B, C, H, W\] and weight \[O, C, 3, 3\]; got"):
        conv3x3(torch.zeros(8, 32, 8, 8), torch.zeros(weight))
