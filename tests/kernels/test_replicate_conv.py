"""`replicate_conv2d` against the plain composition: values, gradients, odd shapes, compiled."""

import pytest
import torch
import torch.nn.functional as F
from fastvae.kernels import replicate_conv2d, replicate_conv2d_ref

from tests.closeness import assert_close

SHAPES = [(2, 3, 5, 7), (1, 1, 1, 1), (2, 5, 1, 6), (1, 33, 17, 3), (3, 4, 8, 8)]


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
    ],
)
def test_refuses(arguments, words):
    with pytest.raises(ValueError, match=words):
        replicate_conv2d(*arguments)


def test_refuses_other_upsampling():
    with pytest.raises(ValueError, match="upsample=1 or upsample=2; got 3"):
        replicate_conv2d(torch.zeros(1, 3, 4, 4), torch.zeros(4, 3, 3, 3), upsample=3)
