"""`zero_padded_conv2d` in C++ on the CPU: values, both gradients, threads, and what is left to torch."""

import pytest
import torch
import torch.nn.functional as F
from torch.library import opcheck

from bench.anatomy import flops
from fastvae import native_library
from fastvae.kernels import force, provider, winograd, zero_padded_conv2d
from fastvae.kernels.winograd import FEWEST_PIXELS, STATED_ERROR
from fastvae.kernels.zero_padded_conv import _forward, _gradients, fits

needs_a_compiler = pytest.mark.skipif(native_library.host_compiler() is None, reason="needs a C++ compiler")

# Stride, batch, inputs, height and width of the result, outputs: complete tiles of 4x4 and of 2x2, parts of either, one
# tile an image, tiles for several turns.
CASES = [
    (1, 8, 32, 8, 8, 64),
    (1, 128, 64, 2, 2, 32),
    (1, 15, 64, 5, 7, 32),
    (1, 86, 32, 3, 2, 96),
    (1, 3, 32, 33, 6, 32),
    (1, 5, 64, 4, 28, 128),
    (1, 33, 96, 4, 4, 96),
    (2, 8, 32, 8, 8, 64),
    (2, 15, 64, 5, 7, 32),
    (2, 3, 32, 33, 6, 32),
    (2, 5, 64, 4, 28, 128),
    (2, 33, 96, 4, 4, 96),
    (2, 60, 32, 3, 3, 32),
]
AT_STRIDE_1, PARTS_OF_TILES, AT_STRIDE_2 = CASES[0], CASES[2], CASES[7]


def operands(case):
    stride, b, c, h, w, o = case
    kernel = {1: 3, 2: 4}[stride]
    generator = torch.Generator().manual_seed(0)
    sizes = (b, c, stride * h, stride * w), (o, c, kernel, kernel), (b, o, h, w)
    x, weight, grad = (torch.randn(size, generator=generator) for size in sizes)
    x, grad = (t.contiguous(memory_format=torch.channels_last) for t in (x, grad))
    return x.requires_grad_(), (weight / weight[0].numel() ** 0.5).requires_grad_(), grad


def convolve(x, weight):
    return zero_padded_conv2d(x, weight, {3: 1, 4: 2}[weight.shape[-1]])


def results(x, weight, grad):
    """y, dL/dx and dL/dweight."""
    y = convolve(x, weight)
    return y.detach(), *torch.autograd.grad(y, (x, weight), grad)


@needs_a_compiler
@pytest.mark.parametrize("case", CASES, ids=str)
def test_values_and_gradients(case, lanes):
    """As close to float64 as torch's, or as stated."""
    x, weight, grad = operands(case)
    assert fits(x, weight, case[0]) and provider("zero_padded_conv2d", x) == "native"
    found = results(x, weight, grad)
    with force("aten"):
        of_torch = results(x, weight, grad)
        exact = results(x.detach().double().requires_grad_(), weight.detach().double().requires_grad_(), grad.double())
    for ours, theirs, right in zip(found, of_torch, exact, strict=True):
        error, of_theirs = ((y.double() - right).norm() / right.norm() for y in (ours, theirs))
        assert ours.shape == right.shape and 0 < error <= max(2 * of_theirs, STATED_ERROR)
    assert found[0].is_contiguous(memory_format=torch.channels_last)


@needs_a_compiler
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("case", [PARTS_OF_TILES, AT_STRIDE_2], ids=str)
def test_any_layout(case, layout):
    x, weight, grad = operands(case)
    expected = results(x, weight, grad)
    there = [t.detach().contiguous(memory_format=layout) for t in (x, weight, grad)]
    found = results(there[0].requires_grad_(), there[1].requires_grad_(), there[2])
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-5)
    assert found[2].stride() == there[1].stride()  # Adam is fast for gradients laid out as their parameters


@needs_a_compiler
def test_a_gradient_that_is_one_number_everywhere():
    x, weight, _ = operands(AT_STRIDE_1)
    ones = torch.ones(()).expand(convolve(x, weight).shape)
    for a, b in zip(results(x, weight, ones), results(x, weight, ones.contiguous()), strict=True):
        assert torch.equal(a, b)


@needs_a_compiler
@pytest.mark.parametrize("case", [AT_STRIDE_1, PARTS_OF_TILES, CASES[6], AT_STRIDE_2, CASES[8], CASES[11]], ids=str)
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


@needs_a_compiler
@pytest.mark.parametrize("wanted", ["x", "weight"])
@pytest.mark.parametrize("case", [AT_STRIDE_1, AT_STRIDE_2], ids=str)
def test_one_gradient_alone(case, wanted, monkeypatch):
    x, weight, grad = operands(case)
    _, dx, dw = results(x, weight, grad)
    given = {"x": x, "weight": weight}
    other = {"x": weight, "weight": x}[wanted].requires_grad_(False)
    with monkeypatch.context() as without:
        if wanted == "x":
            without.setattr(winograd, "weight_gradient", None)
        (found,) = torch.autograd.grad(convolve(x, weight), given[wanted], grad)
    assert other.grad is None and torch.equal(found, {"x": dx, "weight": dw}[wanted])


@needs_a_compiler
def test_an_image_that_is_not_a_number_makes_the_gradient_none():
    x, weight, grad = operands(AT_STRIDE_1)
    with torch.no_grad():
        x[0, 3, 0, 0] = torch.nan
    y, _, dw = results(x, weight, grad)
    assert y[0, :, :2, :2].isnan().all() and not y[1:].isnan().any()
    assert dw[:, 3].isnan().all() and not dw[:, 4].isnan().any()


@needs_a_compiler
def test_what_changes_in_place_counts():
    x, weight, grad = operands(AT_STRIDE_1)
    before = results(x, weight, grad)
    with torch.no_grad():
        weight.mul_(2)
    after = results(x, weight, grad)
    torch.testing.assert_close(after[0], 2 * before[0])
    torch.testing.assert_close(after[1], 2 * before[1])
    assert torch.equal(after[2], before[2])


@pytest.mark.parametrize(
    ("x", "weight", "stride", "dtype"),
    [
        ((8, 3, 8, 8), (32, 3, 3, 3), 1, torch.float32),
        ((8, 32, 8, 8), (33, 32, 3, 3), 1, torch.float32),
        ((8, 32, 8, 8), (32, 32, 3, 3), 1, torch.float64),
        ((8, 32, 8, 8), (32, 32, 3, 3), 1, torch.bfloat16),
        ((64, 32, 1, 8), (32, 32, 3, 3), 1, torch.float32),
        ((FEWEST_PIXELS // 16 - 1, 32, 4, 4), (32, 32, 3, 3), 1, torch.float32),
        ((FEWEST_PIXELS // 16 - 1, 32, 8, 8), (32, 32, 4, 4), 2, torch.float32),
        ((8, 32, 17, 16), (32, 32, 4, 4), 2, torch.float32),
        ((128, 32, 4, 4), (32, 32, 4, 4), 2, torch.float32),
    ],
    ids=str,
)
def test_what_does_not_fit_runs_in_torch(x, weight, stride, dtype):
    generator = torch.Generator().manual_seed(0)
    x, weight = (torch.randn(size, generator=generator).to(dtype).requires_grad_() for size in (x, weight))
    assert not fits(x, weight, stride)
    assert torch.equal(zero_padded_conv2d(x, weight, stride), F.conv2d(x, weight, stride=stride, padding=1))


def test_without_gradients_and_under_autocast_it_is_torchs():
    """Inference transforms no filters, and compiles nothing."""
    x, weight, _ = operands(AT_STRIDE_1)
    with torch.no_grad():
        assert torch.equal(convolve(x, weight), F.conv2d(x, weight, padding=1))
    assert not fits(x.detach(), weight.detach(), 1)
    with torch.autocast("cpu", torch.bfloat16):
        y = convolve(x, weight)
        assert y.dtype == torch.bfloat16 and torch.equal(y, F.conv2d(x, weight, padding=1))


def test_without_a_compiler_it_is_torchs(monkeypatch):
    monkeypatch.setattr(winograd, "is_available", lambda: False)
    x, weight, _ = operands(AT_STRIDE_1)
    assert provider("zero_padded_conv2d", x) == "aten"
    assert torch.equal(convolve(x, weight), F.conv2d(x, weight, padding=1))


def test_transforms_of_torch_take_it_apart():
    x, weight, _ = operands(AT_STRIDE_1)
    x, weight = x.detach(), weight.detach()
    found = torch.func.grad(lambda w: convolve(x, w).square().sum())(weight)
    expected = torch.func.grad(lambda w: F.conv2d(x, w, padding=1).square().sum())(weight)
    torch.testing.assert_close(found, expected)


@needs_a_compiler
@pytest.mark.parametrize("case", [AT_STRIDE_1, AT_STRIDE_2], ids=str)
def test_registered_as_torch_wants_it(case):
    x, weight, grad = operands(case)
    opcheck(_forward, (x, weight, case[0]))
    opcheck(_gradients, (grad, x.detach(), weight.detach(), case[0], True, True))
    opcheck(_gradients, (grad, x.detach(), weight.detach(), case[0], False, True))


@needs_a_compiler
@pytest.mark.parametrize("case", [AT_STRIDE_1, AT_STRIDE_2], ids=str)
def test_compiled(case):
    x, weight, grad = operands(case)
    compiled = torch.compile(zero_padded_conv2d, fullgraph=True, dynamic=False, backend="aot_eager")
    y = compiled(x, weight, case[0])
    found = y.detach(), *torch.autograd.grad(y, (x, weight), grad)
    assert all(torch.equal(a, b) for a, b in zip(found, results(x, weight, grad), strict=True))


@pytest.mark.parametrize(
    ("weight", "stride"), [((32, 16, 3, 3), 1), ((32, 32, 4, 4), 1), ((32, 32, 3, 3), 2), ((32, 32, 3), 1)], ids=str
)
def test_shapes_that_do_not_fit_together(weight, stride):
    with pytest.raises(ValueError, match=r"weight \[O, C, 3, 3\] at stride 1 or \[O, C, 4, 4\] at stride 2; got"):
        zero_padded_conv2d(torch.zeros(8, 32, 8, 8), torch.zeros(weight), stride)


@needs_a_compiler
@pytest.mark.parametrize("case", [AT_STRIDE_1, AT_STRIDE_2], ids=str)
def test_its_arithmetic_is_counted_as_the_convolutions(case):
    x, weight, grad = operands(case)
    counted = flops.count(lambda: results(x, weight, grad), torch.float32)
    with force("aten"):
        assert counted == flops.count(lambda: results(x, weight, grad), torch.float32)


def test_on_another_device_than_its_weight_it_is_torchs_error():
    x, weight, _ = operands(AT_STRIDE_1)
    assert not fits(x, weight.to("meta"), 1)


@needs_a_compiler
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_torchs_default_dtype_does_not_matter(dtype):
    for case in (AT_STRIDE_1, AT_STRIDE_2):
        x, weight, grad = operands(case)
        expected = results(x, weight, grad)
        torch.set_default_dtype(dtype)
        try:
            found = results(x, weight, grad)
        finally:
            torch.set_default_dtype(torch.float32)
        assert all(a.dtype == torch.float32 and torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@needs_a_compiler
def test_a_gradient_penalty_as_the_docstring_says():
    x, weight, _ = operands(AT_STRIDE_1)
    with force("aten", op="zero_padded_conv2d"):
        (dx,) = torch.autograd.grad(convolve(x, weight).square().sum(), x, create_graph=True)
        dx.square().sum().backward()
    assert weight.grad.isfinite().all() and weight.grad.any()


@pytest.mark.gpu
@pytest.mark.parametrize("case", [AT_STRIDE_1, AT_STRIDE_2], ids=str)
def test_on_a_gpu_it_is_torchs(case):
    x, weight, _ = (t.detach().cuda().requires_grad_() for t in operands(case))
    assert torch.equal(convolve(x, weight), F.conv2d(x, weight, stride=case[0], padding=1))
