"""`replicate_conv2d` in ATen against the plain composition: values, gradients, odd shapes, compiled."""

import pytest
import torch
import torch.nn.functional as F
from torch.library import opcheck
from torch.utils._python_dispatch import TorchDispatchMode

from bench.measuring.closeness import assert_close
from fastvae.kernels import replicate_conv2d, replicate_conv2d_ref, replicate_conv2d_with_sums, replicate_conv_aten
from fastvae.kernels.dispatch import SOURCES
from fastvae.kernels.packed_weight import packed_weight_ref
from fastvae.kernels.replicate_conv import _forward, _forward_with_sums, _gradients, cost

SHAPES = [(2, 3, 5, 7), (1, 1, 1, 1), (2, 5, 1, 6), (1, 33, 17, 3), (3, 4, 8, 8)]


@pytest.fixture(autouse=True)
def _the_identity_on_small_maps_too(monkeypatch):
    monkeypatch.setattr(f"{replicate_conv_aten.__name__}._FEWEST_PIXELS", 0)


def operands(shape, out_channels=4, dtype=torch.float64, channels_last=False):
    x = torch.randn(shape, dtype=torch.float64)
    weight = torch.randn(out_channels, shape[1], 3, 3, dtype=torch.float64)
    bias = torch.randn(out_channels, dtype=torch.float64)
    if channels_last:
        x = x.contiguous(memory_format=torch.channels_last)
    return [t.to(dtype).requires_grad_() for t in (x, weight, bias)]


def plain(x, weight, bias=None, *, upsample=1, negative_slope=None):
    """Written apart from the reference in the op's file: indices that are clamped one by one."""
    h, w = x.shape[2:]
    rows = (torch.arange(-1, upsample * h + 1).clamp(0, upsample * h - 1)) // upsample
    columns = (torch.arange(-1, upsample * w + 1).clamp(0, upsample * w - 1)) // upsample
    y = F.conv2d(x[:, :, rows][:, :, :, columns], weight, bias)
    return y if negative_slope is None else torch.where(y > 0, y, negative_slope * y)


@pytest.mark.parametrize("upsample", [1, 2])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_reference_is_the_definition(shape, upsample):
    x, weight, bias = operands(shape)
    options = {"upsample": upsample, "negative_slope": 0.2}
    assert torch.allclose(
        replicate_conv2d_ref(x, weight, bias, **options), plain(x, weight, bias, **options), atol=1e-12
    )


@pytest.mark.parametrize("negative_slope", [None, 0.2])
@pytest.mark.parametrize("upsample", [1, 2])
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_equals_reference_in_float64(shape, channels_last, upsample, negative_slope):
    inputs = operands(shape, channels_last=channels_last)
    options = {"upsample": upsample, "negative_slope": negative_slope}
    y, expected = replicate_conv2d(*inputs, **options), replicate_conv2d_ref(*inputs, **options)
    assert torch.allclose(y, expected, rtol=1e-12, atol=1e-12)
    g = torch.randn_like(expected)
    for ours, theirs in zip(torch.autograd.grad(y, inputs, g), torch.autograd.grad(expected, inputs, g), strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_small_maps_are_upsampled(shape, channels_last, monkeypatch):
    inputs = operands(shape, channels_last=channels_last)
    expected = replicate_conv2d(*inputs, upsample=2, negative_slope=0.2)
    with monkeypatch.context() as patch:
        patch.setattr(f"{replicate_conv_aten.__name__}._FEWEST_PIXELS", 10**6)
        patch.setattr(F, "conv_transpose2d", None)
        found = replicate_conv2d(*inputs, upsample=2, negative_slope=0.2)
    assert torch.allclose(found, expected, rtol=1e-12, atol=1e-12) and found.stride() == expected.stride()


@pytest.mark.parametrize("upsample", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_is_as_exact_as_plain_torch(dtype, upsample):
    inputs = operands((4, 16, 8, 8), 8, dtype)
    exact_inputs = [t.detach().double().requires_grad_() for t in inputs]
    exact = replicate_conv2d_ref(*exact_inputs, upsample=upsample)
    y, expected = (f(*inputs, upsample=upsample) for f in (replicate_conv2d, replicate_conv2d_ref))
    assert_close(y.detach(), expected.detach(), exact.detach())
    g = torch.randn_like(y)
    gradients = [torch.autograd.grad(out, i, g.to(out.dtype)) for out, i in ((y, inputs), (expected, inputs))]
    exact_gradients = torch.autograd.grad(exact, exact_inputs, g.double())
    for ours, theirs, true in zip(*gradients, exact_gradients, strict=True):
        assert_close(ours, theirs, true)


@pytest.mark.parametrize("upsample", [1, 2])
def test_gradcheck(upsample):
    inputs = operands((1, 2, 3, 2), 2)
    assert torch.autograd.gradcheck(lambda *t: replicate_conv2d(*t, upsample=upsample, negative_slope=0.2), inputs)


@pytest.mark.parametrize("negative_slope", [None, 0.2])
@pytest.mark.parametrize("upsample", [1, 2])
def test_a_residual_is_added_before_the_activation(upsample, negative_slope):
    x, weight, bias = operands((2, 3, 4, 5))
    residual = torch.randn(2, 4, 4 * upsample, 5 * upsample, dtype=torch.float64, requires_grad=True)
    options = {"upsample": upsample, "negative_slope": negative_slope}
    expected = plain(x, weight, bias, upsample=upsample) + residual
    expected = expected if negative_slope is None else torch.where(expected > 0, expected, 0.2 * expected)
    for function in (replicate_conv2d, replicate_conv2d_ref):
        assert torch.allclose(function(x, weight, bias, residual=residual, **options), expected, atol=1e-12)
    inputs = (x, weight, bias, residual)
    assert torch.autograd.gradcheck(
        lambda x, w, b, r: replicate_conv2d(x, w, b, residual=r, **options), inputs, fast_mode=True
    )


def test_under_autocast_the_residual_is_cast_as_x_is():
    x, weight, residual = torch.randn(1, 3, 4, 4), torch.randn(5, 3, 3, 3), torch.randn(1, 5, 4, 4)
    with torch.autocast("cpu", torch.bfloat16):
        found = replicate_conv2d(x, weight, residual=residual)
        assert torch.equal(found, replicate_conv2d(x, weight, residual=residual.bfloat16()))
    assert found.dtype == torch.bfloat16


@pytest.mark.parametrize(
    "residual",
    [torch.zeros(1, 4, 4, 4), torch.zeros(1, 4, 8, 8).half(), torch.zeros(1, 4, 8, 8, device="meta")],
    ids=["shape", "dtype", "device"],
)
def test_refuses_a_residual_unlike_the_result(residual):
    with pytest.raises(ValueError, match=r"residual like its result, \[1, 4, 8, 8\] of torch.float32 on cpu; got"):
        replicate_conv2d(torch.zeros(1, 3, 4, 4), torch.zeros(4, 3, 3, 3), upsample=2, residual=residual)


@pytest.mark.parametrize("upsample", [1, 2])
def test_sums_are_those_of_the_result(upsample):
    inputs = operands((2, 3, 4, 5), 4, channels_last=True)
    y, sums = replicate_conv2d_with_sums(*inputs, upsample=upsample)
    assert torch.equal(y, replicate_conv2d(*inputs, upsample=upsample))
    assert torch.allclose(sums, torch.stack((y.sum((0, 2, 3)), y.square().sum((0, 2, 3)))), rtol=1e-12)
    assert torch.autograd.gradcheck(
        lambda *t: replicate_conv2d_with_sums(*t, upsample=upsample), operands((1, 2, 3, 2), 2)
    )


def test_normalising_by_the_sums_is_batch_normalisation():
    inputs = operands((3, 3, 4, 5), 4)
    y, sums = replicate_conv2d_with_sums(*inputs)
    mean, square = (sums / (y.numel() / 4)).view(2, 1, 4, 1, 1)
    normalised = (y - mean) / (square - mean**2 + 1e-5).sqrt()
    expected = F.batch_norm(replicate_conv2d_ref(*inputs), None, None, training=True)
    assert torch.allclose(normalised, expected, atol=1e-10)
    g = torch.randn_like(y)
    for ours, theirs in zip(
        torch.autograd.grad(normalised, inputs, g), torch.autograd.grad(expected, inputs, g), strict=True
    ):
        assert torch.allclose(ours, theirs, atol=1e-9)


@pytest.mark.parametrize(
    ("dtype", "channels_last", "upsample"),
    [(torch.float64, False, 1), (torch.float64, True, 2), (torch.bfloat16, False, 2), (torch.bfloat16, True, 1)],
    ids=str,
)
def test_registered_as_torch_wants_it(dtype, channels_last, upsample):
    x, weight, bias = operands((2, 3, 5, 6), 4, dtype, channels_last)
    packed = packed_weight_ref(weight.detach(), upsample)
    residual = torch.randn(2, 4, 5 * upsample, 6 * upsample).to(dtype).requires_grad_()
    opcheck(_forward, (x, weight, bias, None, residual, upsample, 0.2, SOURCES))
    opcheck(_forward, (x, weight, None, packed, None, upsample, None, SOURCES))
    if dtype == torch.float64:  # torch's check compares squares of bfloat16 results, rounded on two ways
        opcheck(_forward_with_sums, (x, weight, bias, None, upsample, SOURCES))
    y = _forward(x, weight, bias, None, None, upsample, 0.2, SOURCES).detach()
    g = torch.randn_like(y)
    inputs = (x.detach(), weight.detach(), packed, upsample)
    opcheck(_gradients, (g, y, *inputs, 0.2, [True, True, True]))
    opcheck(_gradients, (g, None, *inputs, None, [False, True, False]))


@pytest.mark.parametrize("upsample", [1, 2])
def test_only_the_gradients_that_are_wanted(upsample):
    for wanted in range(3):
        inputs = [t.detach().requires_grad_(i == wanted) for i, t in enumerate(operands((2, 3, 4, 4)))]
        replicate_conv2d(*inputs, upsample=upsample).square().sum().backward()
        assert [t.grad is not None for t in inputs] == [i == wanted for i in range(3)]


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("upsample", [1, 2])
def test_without_gradients_the_result_is_the_same(upsample, autocast):
    """Then ATen runs without the registered operation."""
    x, weight, bias = torch.randn(2, 3, 5, 5), torch.randn(4, 3, 3, 3, requires_grad=True), torch.randn(4)
    options = {"upsample": upsample, "residual": torch.randn(2, 4, 5 * upsample, 5 * upsample), "negative_slope": 0.2}
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        y = replicate_conv2d(x, weight, bias, **options)
        assert y.requires_grad and y.dtype == (torch.bfloat16 if autocast else torch.float32)
        with torch.no_grad():
            assert torch.equal(replicate_conv2d(x, weight, bias, **options), y)
        assert torch.equal(replicate_conv2d(x, weight.detach(), bias, **options), y)


def test_whoever_looks_on_sees_the_operation_without_gradients_too():
    seen = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, op, types, args=(), kwargs=None):
            seen.append(getattr(op, "overloadpacket", None))
            return op(*args, **(kwargs or {}))

    with torch.no_grad(), Watch():
        replicate_conv2d(torch.randn(2, 3, 4, 4), torch.randn(4, 3, 3, 3))
    assert torch.ops.fastvae.replicate_conv2d in seen


def test_under_autocast_gradients_have_their_operands_dtypes():
    x, weight, bias = operands((2, 4, 6, 6), 8, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        y = replicate_conv2d(x, weight, bias, upsample=2)
    assert y.dtype == torch.bfloat16
    y.float().square().sum().backward()
    assert weight.grad.dtype == bias.grad.dtype == x.grad.dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        assert replicate_conv2d(x.double(), weight.double()).dtype == torch.float64


def test_a_backward_pass_inside_autocast_keeps_its_dtypes():
    x, weight, bias = operands((2, 4, 6, 6), 8, torch.float32)
    y = replicate_conv2d(x, weight, bias)
    with torch.autocast("cpu", torch.bfloat16):
        found = torch.autograd.grad(y.square().sum(), (x, weight, bias))
    y = replicate_conv2d(x, weight, bias)
    expected = torch.autograd.grad(y.square().sum(), (x, weight, bias))
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("upsample", [1, 2])
def test_compiled_in_one_graph(upsample):
    inputs = operands((2, 3, 6, 5), 4, torch.float32, channels_last=True)
    compiled = torch.compile(lambda *t: replicate_conv2d(*t, upsample=upsample), fullgraph=True)
    y, expected = compiled(*inputs), replicate_conv2d_ref(*inputs, upsample=upsample)
    g = torch.randn_like(expected)
    assert torch.allclose(y, expected, atol=1e-5)
    for ours, theirs in zip(torch.autograd.grad(y, inputs, g), torch.autograd.grad(expected, inputs, g), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-4)


def test_empty_batch_and_non_contiguous_input():
    weight = torch.randn(4, 3, 3, 3)
    assert replicate_conv2d(torch.empty(0, 3, 4, 4), weight, upsample=2).shape == (0, 4, 8, 8)
    x = torch.randn(2, 3, 9, 9)[:, :, ::2, 1:6]
    assert torch.allclose(replicate_conv2d(x, weight), replicate_conv2d_ref(x, weight), atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((torch.zeros(3, 4, 4), torch.zeros(4, 3, 3, 3)), r"\[B, C, H, W\]"),
        ((torch.zeros(1, 3, 4, 4, dtype=torch.uint8), torch.zeros(4, 3, 3, 3)), "uint8"),
        ((torch.zeros(1, 3, 4, 4), torch.zeros(4, 2, 3, 3)), r"\[O, 3, 3, 3\]"),
        ((torch.zeros(1, 3, 4, 4), torch.zeros(4, 3, 5, 5)), r"\[4, 3, 5, 5\]"),
        ((torch.zeros(1, 3, 4, 4), torch.zeros(4, 3, 3, 3), torch.zeros(3)), r"bias \[4\]"),
        ((torch.zeros(1, 3, 0, 4), torch.zeros(4, 3, 3, 3)), "empty map"),
        ((torch.zeros(1, 3, 4, 4), torch.zeros(4, 3, 3, 3).double()), "float32, torch.float64"),
        ((torch.zeros(1, 3, 4, 4).bfloat16(), torch.zeros(4, 3, 3, 3)), "bfloat16, torch.float32"),
        ((torch.zeros(1, 3, 4, 4), torch.zeros(4, 3, 3, 3), torch.zeros(4).half()), "and torch.float16"),
        ((torch.zeros(1, 3, 4, 4), torch.zeros(4, 3, 3, 3, device="meta")), "one device; got x on cpu, weight on meta"),
    ],
)
def test_refuses(arguments, words):
    with pytest.raises(ValueError, match=words):
        replicate_conv2d(*arguments)


def test_refuses_other_upsampling():
    with pytest.raises(ValueError, match="upsample=1 or upsample=2; got 3"):
        replicate_conv2d(torch.zeros(1, 3, 4, 4), torch.zeros(4, 3, 3, 3), upsample=3)


def test_refuses_a_slope_that_hides_the_sign():
    with pytest.raises(ValueError, match=r"negative_slope >= 0 or None; got -0\.1"):
        replicate_conv2d(torch.zeros(1, 3, 4, 4), torch.zeros(4, 3, 3, 3), negative_slope=-0.1)


def test_cost_is_counted_by_the_identity():
    plain = cost(2, 8, 4, 6, 6, upsample=1, dtype=torch.float32, direction="forward")
    assert plain.flops == 2 * 2 * 4 * 6 * 6 * 8 * 9
    assert plain.bytes == 4 * (2 * 8 * 36 + 2 * 4 * 36 + 4 * 8 * 9)
    doubled = cost(2, 8, 4, 6, 6, upsample=2, dtype=torch.bfloat16, direction="weight_gradient")
    assert doubled.flops == 4 * plain.flops * 4 / 9
    assert doubled.bytes == 2 * (2 * 8 * 36 + 2 * 4 * 144 + 4 * 8 * 9)
    with pytest.raises(ValueError, match="got 'backward'"):
        cost(1, 1, 1, 1, 1, upsample=1, dtype=torch.float32, direction="backward")
