"""`conv_relu` in C++ on the CPU: values, gradients, kept filters, threads, compilers, and what is left to ATen."""

import gc
import logging

import pytest
import torch
import torch.nn.functional as F
from torch.library import opcheck

from bench.measuring.closeness import assert_close
from fastvae import native_library
from fastvae.errors import FastvaeError
from fastvae.kernels import conv_relu, conv_relu_native, conv_relu_ref, force, provider, winograd
from fastvae.kernels.conv_relu import _forward, _native_gradient, conv_relu_gradient
from fastvae.kernels.conv_relu_native import fits, fits_gradient, gradient
from fastvae.kernels.winograd import STATED_ERROR

pytestmark = pytest.mark.skipif(native_library.host_compiler() is None, reason="needs a C++ compiler")

# Complete tiles of 4x4 and of 2x2, parts of either, one tile, several of the groups that share filters.
CASES = [
    ((2, 32, 8, 8), 64),
    ((1, 64, 2, 2), 32),
    ((3, 64, 5, 7), 32),
    ((2, 32, 3, 2), 96),
    ((1, 32, 33, 6), 32),
    ((1, 256, 4, 28), 32),
]


def operands(case, dtype=torch.float32, layout=torch.channels_last):
    shape, outputs = case
    generator = torch.Generator().manual_seed(0)
    x, weight, bias = (
        torch.randn(size, generator=generator) for size in (shape, (outputs, shape[1], 3, 3), (outputs,))
    )
    weight = weight / weight[0].numel() ** 0.5
    return x.to(dtype).contiguous(memory_format=layout), weight.to(dtype), bias.to(dtype)


def check_gradient(found, y, grad, weight):
    assert found.is_contiguous(memory_format=torch.channels_last)
    masked = torch.where(y <= 0, 0, grad)
    check(found, *(F.conv_transpose2d(masked.to(t), weight.to(t), padding=1) for t in (y.dtype, torch.float64)))


def check(found, plain, exact):
    """As close to float64 as plain torch, or as stated."""
    if found.dtype == torch.float32:
        largest = exact.abs().max()
        error, of_plain = ((y.double() - exact).abs().max() / largest for y in (found, plain))
        assert found.shape == exact.shape and error <= max(2 * of_plain, STATED_ERROR)
    else:
        assert_close(found, plain, exact)


@pytest.fixture
def transformations(monkeypatch):
    """One entry for each time that filters are transformed; none are kept at first."""
    made, transformed = [], winograd.transformed
    monkeypatch.setattr(winograd, "transformed", lambda *args: made.append(args[1:]) or transformed(*args))
    monkeypatch.setattr(conv_relu_native, "_filters", {})
    return made


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_values(case, dtype, lanes):
    x, weight, bias = operands(case, dtype)
    assert provider("conv_relu", x) == "native" and fits(x, weight, 1)
    y = conv_relu(x, weight, bias, padding=1)
    assert y.is_contiguous(memory_format=torch.channels_last)
    check(y, F.conv2d(x, weight, bias, padding=1).relu(), conv_relu_ref(x, weight, bias, 1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_gradient(case, dtype, lanes):
    x, weight, bias = operands(case, dtype)
    y = conv_relu(x.requires_grad_(), weight, bias, padding=1)
    grad = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    (found,) = torch.autograd.grad(y, x, grad)
    check_gradient(found, y, grad, weight)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("channels", [1, 3, 40])
def test_gradient_of_images(channels, dtype, lanes):
    """Whose few channels fill no vector."""
    x, weight, bias = operands(((2, channels, 9, 6), 64), dtype)
    assert fits_gradient(x, weight) and not fits(x, weight, 1)
    y = conv_relu(x, weight, bias, padding=1)
    grad = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    check_gradient(conv_relu_gradient(grad, x, weight, y), y, grad, weight)


@pytest.mark.parametrize("layout", ["contiguous", "transposed", "every second channel", "the same image repeated"])
def test_any_layout(layout):
    x, weight, bias = operands(CASES[0])
    expected = conv_relu(x, weight, bias, padding=1)
    grad = torch.randn(expected.shape)
    expected_gradient = gradient(grad, expected, weight)
    change = {
        "contiguous": torch.Tensor.contiguous,
        "transposed": lambda t: t.mT.contiguous().mT,
        "every second channel": lambda t: t.repeat_interleave(2, dim=1)[:, ::2],
        "the same image repeated": lambda t: t[:1].expand_as(t),
    }[layout]
    if layout != "the same image repeated":
        weight = change(weight)
    else:
        expected, expected_gradient = change(expected), change(expected_gradient)
    assert torch.equal(conv_relu(change(x), weight, bias, padding=1), expected)
    assert torch.equal(gradient(change(grad), change(expected), weight), expected_gradient)


@pytest.mark.parametrize("case", [CASES[0], CASES[2], ((40, 32, 4, 4), 64)], ids=str)
def test_threads_and_the_rest_of_the_batch_change_no_bit(case):
    x, weight, bias = operands(case)
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3, 7):
            torch.set_num_threads(threads)
            y = conv_relu(x, weight, bias, padding=1)
            results.append((y, gradient(y, y, weight)))
    finally:
        torch.set_num_threads(before)
    for y, dx in results:
        assert torch.equal(y, results[0][0]) and torch.equal(dx, results[0][1])
    last = conv_relu(x[-1:], weight, bias, padding=1)
    assert torch.equal(last, results[0][0][-1:]) and torch.equal(gradient(last, last, weight), results[0][1][-1:])


def test_filters_are_transformed_once(transformations):
    x, weight, bias = operands(CASES[0])
    for _ in range(3):
        # `detach` makes another tensor of the same memory in every call.
        y = conv_relu(x.detach().requires_grad_(), weight.detach(), bias, padding=1)
        y.sum().backward()
    assert transformations == [(4, False), (4, True)]


def test_casts_of_autocast_are_transformed_once(transformations):
    x, weight, bias = operands(CASES[0])
    for _ in range(2):
        with torch.autocast("cpu", torch.bfloat16):
            y = conv_relu(x.requires_grad_(), weight, bias, padding=1)
        assert y.dtype == torch.bfloat16
        y.sum().backward()
    assert len(transformations) == 2 and x.grad.dtype == torch.float32
    rounded = [t.detach().bfloat16() for t in (x, weight, bias)]
    assert torch.equal(y, conv_relu(*rounded, padding=1))


@pytest.mark.parametrize(
    "change",
    [
        lambda weight: weight.mul_(2),
        lambda weight: weight.detach().mul_(2),
        lambda weight: weight[1:].mul_(2),
    ],
    ids=["itself", "another tensor of its memory", "a part"],
)
def test_a_change_in_place_counts(change):
    x, weight, bias = operands(CASES[0])
    conv_relu(x, weight, bias, padding=1)
    change(weight)
    with force("aten"):
        expected = conv_relu(x, weight, bias, padding=1)
    y = conv_relu(x, weight, bias, padding=1)
    torch.testing.assert_close(y, expected, rtol=0, atol=STATED_ERROR * expected.max().item())
    torch.testing.assert_close(gradient(y, y, weight), gradient(y, y, weight.clone()), rtol=0, atol=0)


def test_a_part_of_a_weight_is_another_one(transformations):
    x, weight, bias = operands(CASES[0])
    y = conv_relu(x, weight, bias, padding=1)
    for part in (slice(32), slice(32, None)):
        assert torch.allclose(conv_relu(x, weight[part], bias[part], padding=1), y[:, part], atol=1e-5)
    assert len(transformations) == 3


def test_kept_filters_go_with_their_weight(transformations):
    x, weight, bias = operands(CASES[0])
    for _ in range(3):  # memory of an earlier weight may be used again
        weight = weight.clone()
        y = conv_relu(x, weight, bias, padding=1)
        gc.collect()
        assert len(conv_relu_native._filters) == 1
        with force("aten"):
            assert torch.allclose(y, conv_relu(x, weight, bias, padding=1), atol=1e-4)
    assert len(transformations) == 3


def test_weights_that_count_no_changes_are_not_kept(transformations):
    x, weight, bias = operands(CASES[0])
    with torch.inference_mode():
        weight = weight.clone()
        conv_relu(x, weight, bias, padding=1)
        weight.zero_()
        y = conv_relu(x, weight, bias, padding=1)
    assert torch.equal(y, bias.relu().view(1, -1, 1, 1).expand_as(y))
    assert len(transformations) == 2 and not conv_relu_native._filters


def test_nan_and_infinity():
    x, weight, bias = operands(((1, 32, 12, 12), 32))
    x[0, 3, 0, 0] = torch.nan
    for dtype in (torch.float32, torch.bfloat16):
        y = conv_relu(x.to(dtype), weight.to(dtype), bias.to(dtype), padding=1)
        assert y[0, :, :2, :2].isnan().all() and not y[0, :, 8:, 8:].isnan().any()
        # Where y is NaN the gradient is passed on; where it is zero, not even NaN is.
        ones = torch.ones_like(y)
        assert not gradient(ones, y, weight.to(dtype)).isnan().any()
        zero = torch.zeros_like(y)
        assert (gradient(ones * torch.nan, zero, weight.to(dtype)) == 0).all()
        passed = gradient(ones, torch.full_like(y, torch.nan), weight.to(dtype))
        assert torch.equal(passed, gradient(ones, ones, weight.to(dtype)))


def test_a_trained_weight_gets_its_gradient():
    for trained in ("weight", "bias"):
        x, weight, bias = operands(CASES[0])
        parameter = {"weight": weight, "bias": bias}[trained].requires_grad_()
        found = torch.autograd.grad(conv_relu(x, weight, bias, padding=1).square().sum(), parameter)
        expected = torch.autograd.grad(F.conv2d(x, weight, bias, padding=1).relu().square().sum(), parameter)
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    ("shape", "weight", "padding", "dtype"),
    [
        ((1, 3, 8, 8), (32, 3, 3, 3), 1, torch.float32),
        ((1, 32, 8, 8), (33, 32, 3, 3), 1, torch.float32),
        ((1, 32, 8, 8), (32, 32, 3, 3), 0, torch.float32),
        ((1, 32, 8, 8), (32, 32, 1, 1), 1, torch.float32),
        ((1, 32, 8, 8), (32, 32, 3, 3), 1, torch.float64),
        ((1, 32, 8, 8), (32, 32, 3, 3), 1, torch.float16),
        ((1, 32, 1, 8), (32, 32, 3, 3), 1, torch.float32),
        ((1, 32, 1, 1), (32, 32, 3, 3), 1, torch.bfloat16),
        ((0, 32, 8, 8), (32, 32, 3, 3), 1, torch.float32),
    ],
    ids=str,
)
def test_what_does_not_fit_runs_in_aten(shape, weight, padding, dtype, monkeypatch):
    monkeypatch.setattr(conv_relu_native, "forward", None)
    generator = torch.Generator().manual_seed(0)
    x, w = (torch.randn(size, generator=generator).to(dtype) for size in (shape, weight))
    x, bias = x.contiguous(memory_format=torch.channels_last), torch.ones(weight[0], dtype=dtype)
    assert not fits(x, w, padding)
    y = conv_relu(x, w, bias, padding=padding)
    assert torch.equal(y, F.conv2d(x, w, bias, padding=padding).relu())


def test_registered_as_torch_wants_it():
    x, weight, bias = operands(CASES[2])
    opcheck(_forward, (x.requires_grad_(), weight, bias, 1))
    y = conv_relu(x.detach(), weight, bias, padding=1)
    opcheck(_native_gradient, (y.clone(), y, weight))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_compiled(dtype):
    x, weight, bias = operands(CASES[2])

    def loss(x):
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            y = conv_relu(x, weight, bias, padding=1)
        return y.float().square().sum()

    results = []
    for run in (loss, torch.compile(loss, fullgraph=True, dynamic=False, backend="aot_eager")):
        given = x.clone().requires_grad_()
        value = run(given)
        value.backward()
        results.append((value, given.grad))
    torch.testing.assert_close(*results, rtol=0, atol=0)


def test_transforms_of_torch_take_it_apart(monkeypatch):
    monkeypatch.setattr(conv_relu_native, "forward", None)
    x, weight, bias = operands(CASES[0])
    found = torch.func.grad(lambda x: conv_relu(x, weight, bias, padding=1).square().sum())(x)
    expected = torch.func.grad(lambda x: F.conv2d(x, weight, bias, padding=1).relu().square().sum())(x)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("lacks", ["a compiler", "torch's threads"])
def test_without_what_it_needs_aten_runs_and_it_is_said_once(lacks, monkeypatch, caplog):
    def missing(*_):
        raise FastvaeError(f"there is no {lacks}")

    monkeypatch.setattr(winograd, "_library" if lacks == "a compiler" else "_parallel", missing)
    winograd.is_available.cache_clear()
    try:
        x, weight, bias = operands(CASES[0])
        with caplog.at_level(logging.INFO, "fastvae"):
            for _ in range(2):
                assert provider("conv_relu", x) == "aten"
                y = conv_relu(x, weight, bias, padding=1)
        assert torch.equal(y, F.conv2d(x, weight, bias, padding=1).relu())
        assert [lacks in r.getMessage() for r in caplog.records] == [True]
    finally:
        winograd.is_available.cache_clear()


def test_every_source_counts():
    there = {path for path in winograd._HERE.iterdir() if path.suffix in (".cpp", ".h")}
    listed = {winograd.SOURCES.entry, *winograd.SOURCES.headers}
    assert there <= listed
    included = {
        line.split('"')[1] for p in listed for line in p.read_text().splitlines() if line.startswith('#include "')
    }
    assert included == {p.name for p in winograd.SOURCES.headers}
