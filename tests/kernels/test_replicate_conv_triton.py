"""The Triton kernels of `replicate_conv2d`: interpreted on the CPU, and on a GPU where there is one."""

import pytest
import torch

from bench.kernels.resources import recorded
from bench.measuring.closeness import assert_close
from fastvae.kernels import (
    dispatch,
    packed_weight,
    provider,
    replicate_conv2d,
    replicate_conv2d_ref,
    replicate_conv2d_with_sums,
    tiles,
)
from tests.kernels.interpreter import interpreted

# Output channels of 3 and 4 take the packed form when upsampling; the others one product for each phase.
ODD = [
    ((1, 1, 1, 1), 3),
    ((1, 3, 1, 1), 5),
    ((2, 5, 1, 6), 4),
    ((2, 3, 5, 7), 5),
    ((1, 33, 17, 3), 3),
    ((1, 5, 17, 3), 33),
    ((1, 1, 2, 2), 1),
]
# More than one tile of channels; more than one of pixels, of the inner ones too, in either form.
LARGE = [((1, 66, 5, 6), 65), ((1, 5, 16, 17), 6), ((2, 16, 16, 16), 3)]
DTYPES = [torch.float32, torch.bfloat16, torch.float16]


@pytest.fixture(autouse=True)
def _few_programs(request, monkeypatch):
    """The interpreter's cost is by program; these two kernels have one for every 256 weights on a GPU."""
    if not request.node.get_closest_marker("gpu"):
        monkeypatch.setitem(packed_weight.WEIGHT_TILE, "BLOCK", 8192)


def test_a_bias_of_any_layout():
    """A column of a table, and one number for all channels."""
    x, weight = torch.randn(1, 3, 2, 3), torch.randn(5, 3, 3, 3)
    for bias in (torch.randn(5, 4)[:, 1], torch.ones(1).expand(5)):
        with interpreted():
            found, expected = (replicate_conv2d(x, weight, b) for b in (bias, bias.clone()))
        assert torch.equal(found, expected)


def check(shape, out_channels, dtype, upsample, slope, device="cpu", bias=True):
    """Runs the op, forward and backward, and holds it to the float64 reference."""
    generator = torch.Generator().manual_seed(1)

    def random(*size):
        return torch.randn(*size, generator=generator).to(device, dtype).requires_grad_()

    inputs = [random(*shape), random(out_channels, shape[1], 3, 3)] + ([random(out_channels)] if bias else [])
    options = {"upsample": upsample, "negative_slope": slope}
    grad = random(shape[0], out_channels, upsample * shape[2], upsample * shape[3]).detach()
    assert provider("replicate_conv2d", inputs[0]) == "triton"
    y = replicate_conv2d(*inputs, **options)
    # The slope's side of the gradient follows the sign of y, and a y that rounds to the other side of zero is not an
    # error of the gradient: so all are given the gradient before the activation, by our y.
    before = grad if slope is None else torch.where(y.detach() > 0, grad, grad * slope)
    ours = [y.detach(), *torch.autograd.grad(y, inputs, grad)]
    with dispatch.force("aten"):
        plain_y = replicate_conv2d_ref(*inputs, upsample=upsample)
        plain = [replicate_conv2d_ref(*inputs, **options).detach(), *torch.autograd.grad(plain_y, inputs, before)]
        wide = [t.detach().double().requires_grad_() for t in inputs]
        exact_y = replicate_conv2d_ref(*wide, upsample=upsample)
        exact = [replicate_conv2d_ref(*wide, **options).detach()]
        exact += torch.autograd.grad(exact_y, wide, before.double())
        positive = [t.detach().abs().requires_grad_() for t in wide]
        terms_y = replicate_conv2d_ref(*positive, upsample=upsample)
        terms = [terms_y.detach(), *torch.autograd.grad(terms_y, positive, before.double().abs())]
    for got, expected, true, size in zip(ours, plain, exact, terms, strict=True):
        assert_close(got, expected, true, size)


@pytest.mark.parametrize("upsample", [1, 2])
def test_lazily_negated_views_are_read_negated(upsample):
    """float32, as of `x.conj().imag`: the sign is a bit of the tensor, which its memory knows nothing of."""
    plain = [torch.randn(shape) for shape in ((1, 3, 4, 4), (4, 3, 3, 3), (4,), (1, 4, 4 * upsample, 4 * upsample))]
    negated = [torch._neg_view(-t) for t in plain]
    assert all(t.is_neg() for t in negated)
    with interpreted():
        results = []
        for *inputs, grad in (plain, negated):
            inputs = [t.requires_grad_() for t in inputs]
            y = replicate_conv2d(*inputs, upsample=upsample, negative_slope=0.2)
            results.append([y.detach(), *torch.autograd.grad(y, inputs, grad)])
    for found, expected in zip(*results, strict=True):
        assert torch.equal(found, expected)


@pytest.mark.parametrize("upsample", [1, 2])
@pytest.mark.parametrize(("shape", "out_channels"), ODD, ids=str)
def test_odd_shapes(shape, out_channels, upsample):
    with interpreted():
        check(shape, out_channels, torch.float32, upsample, 0.2)


@pytest.mark.parametrize("dtype", [torch.float32, pytest.param(torch.bfloat16, marks=pytest.mark.slow)], ids=str)
@pytest.mark.parametrize("upsample", [1, 2])
@pytest.mark.parametrize(("shape", "out_channels"), LARGE, ids=str)
def test_several_tiles(shape, out_channels, upsample, dtype):
    with interpreted():
        check(shape, out_channels, dtype, upsample, None, bias=out_channels == 3)


@pytest.mark.parametrize("upsample", [1, 2])
@pytest.mark.parametrize("dtype", DTYPES[1:], ids=str)
def test_half_precision_with_activation(dtype, upsample):
    with interpreted():
        check((2, 5, 6, 5), 3, dtype, upsample, 0.2)
        check((2, 5, 6, 5), 6, dtype, upsample, 0.2)


@pytest.mark.parametrize("capability", [(7, 5), (8, 0)], ids=str)
def test_tiles_of_older_gpus(capability):
    with interpreted(capability):
        for upsample, out_channels in ((1, 5), (2, 5), (2, 3)):
            check((1, 20, 16, 3), out_channels, torch.float32, upsample, None)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("upsample", "out_channels"), [(1, 5), (2, 5), (2, 3)])
def test_residual(upsample, out_channels, dtype):
    shape = (2, out_channels, 5 * upsample, 3 * upsample)
    inputs = [torch.randn(2, 4, 5, 3), torch.randn(out_channels, 4, 3, 3), torch.randn(out_channels)]
    inputs, residual = [t.to(dtype) for t in inputs], torch.randn(shape).to(dtype)
    options = {"upsample": upsample, "negative_slope": 0.2}
    with interpreted():
        found = replicate_conv2d(*inputs, residual=residual, **options)
    exact = replicate_conv2d_ref(*(t.double() for t in inputs), residual=residual.double(), **options)
    assert_close(found, replicate_conv2d_ref(*inputs, residual=residual, **options), exact)


def test_the_residual_s_gradient_is_the_one_before_the_activation():
    inputs = [torch.randn(2, 4, 5, 3), torch.randn(5, 4, 3, 3), torch.randn(2, 5, 5, 3)]
    x, weight, residual = (t.requires_grad_() for t in inputs)
    with interpreted():
        y = replicate_conv2d(x, weight, residual=residual, negative_slope=0.2)
        found = torch.autograd.grad(y, (x, weight, residual), torch.ones_like(y))
    expected_y = replicate_conv2d_ref(x, weight, residual=residual, negative_slope=0.2)
    expected = torch.autograd.grad(expected_y, (x, weight, residual), torch.ones_like(y))
    assert all(torch.allclose(a, b, atol=1e-4) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize(("upsample", "out_channels"), [(1, 5), (2, 5), (2, 3)])
def test_sums(upsample, out_channels):
    x, weight, bias = torch.randn(3, 4, 9, 8), torch.randn(out_channels, 4, 3, 3), torch.randn(out_channels)
    with interpreted():
        y, sums = replicate_conv2d_with_sums(x, weight, bias, upsample=upsample)
    expected, expected_sums = replicate_conv2d_with_sums(x, weight, bias, upsample=upsample)
    assert torch.allclose(y, expected, atol=1e-5)
    assert torch.allclose(sums, expected_sums, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("upsample", [1, 2])
def test_layouts_and_master_weights(upsample):
    """Any strides come in; float32 weights beside a half-precision x keep their gradient in float32."""
    x = torch.randn(2, 9, 8, 5).permute(0, 2, 3, 1)[:, ::2, :, 1:6]
    weight = torch.randn(6, 4, 3, 3).contiguous(memory_format=torch.channels_last)
    with interpreted():
        y = replicate_conv2d(x, weight, upsample=upsample)
        assert y.is_contiguous(memory_format=torch.channels_last)
        assert torch.allclose(y, replicate_conv2d_ref(x, weight, upsample=upsample), atol=1e-5)
        weight.requires_grad_()
        with torch.autocast("cpu", torch.bfloat16):
            replicate_conv2d(x, weight, upsample=upsample).float().square().sum().backward()
    exact = replicate_conv2d_ref(x.double(), weight.double(), upsample=upsample).square().sum()
    (expected,) = torch.autograd.grad(exact, weight)
    assert weight.grad.dtype == torch.float32 and weight.grad.stride() == weight.stride()
    assert (weight.grad - expected).norm() < 0.02 * expected.norm()


@pytest.mark.parametrize(("upsample", "out_channels"), [(1, 5), (2, 5), (2, 3)])
def test_an_empty_batch_has_zero_gradients(upsample, out_channels):
    inputs = [torch.empty(0, 3, 4, 4), torch.randn(out_channels, 3, 3, 3), torch.randn(out_channels)]
    inputs = [t.requires_grad_() for t in inputs]
    with interpreted():
        y = replicate_conv2d(*inputs, upsample=upsample)
        y.sum().backward()
    assert y.shape == (0, out_channels, 4 * upsample, 4 * upsample)
    assert inputs[0].grad.shape == inputs[0].shape
    assert not inputs[1].grad.any() and not inputs[2].grad.any()


def test_where_the_table_says_aten_the_layout_stays_the_same(monkeypatch):
    """The compiler was promised channels_last, whoever runs."""
    monkeypatch.setattr(tiles, "choose", lambda *_: None)
    x, weight = torch.randn(2, 4, 5, 6), torch.randn(3, 4, 3, 3)
    grad = torch.randn(2, 3, 5, 6)
    with dispatch.force("triton", capability=(9, 0)):
        dx, _, _ = torch.ops.fastvae.replicate_conv2d_backward(
            grad, None, x, weight, None, 1, None, [True, True, False]
        )
    assert dx.is_contiguous(memory_format=torch.channels_last)


def test_gradients_are_the_same_from_run_to_run():
    inputs = [t.requires_grad_() for t in (torch.randn(4, 8, 9, 8), torch.randn(6, 8, 3, 3))]
    with interpreted():
        first, second = (
            torch.autograd.grad(replicate_conv2d(*inputs, upsample=2).square().sum(), inputs) for _ in range(2)
        )
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


# Channels, output channels, size, upsampling and slope: each form with the recipes' numbers and with odd ones, with an
# activation and without. Every case compiles five kernels, so there are few.
GPU_CASES = {
    torch.bfloat16: [
        (128, 64, 8, 2, None),
        (33, 5, 17, 2, 0.2),
        (32, 32, 32, 1, 0.2),
        (33, 5, 17, 1, None),
        (32, 3, 32, 2, None),
        (5, 3, 3, 2, 0.2),
    ],
    torch.float16: [(64, 32, 16, 2, 0.2), (33, 3, 17, 2, None)],
    torch.float32: [(64, 32, 16, 2, None), (33, 5, 17, 1, 0.2), (32, 3, 32, 2, None)],
}
ON_GPU = [(dtype, *case) for dtype, cases in GPU_CASES.items() for case in cases]
GPU_BATCH = 64


@pytest.mark.gpu
@pytest.mark.parametrize(("dtype", "channels", "out_channels", "size", "upsample", "slope"), ON_GPU, ids=str)
def test_on_the_gpu(dtype, channels, out_channels, size, upsample, slope, poisoned_memory, without_tf32):
    x = torch.empty(1, device="cuda", dtype=dtype)
    if provider("replicate_conv2d", x) != "triton":
        pytest.skip(f"{torch.cuda.get_device_name()} runs ATen in {dtype}")
    check((GPU_BATCH, channels, size, size + size % 2), out_channels, dtype, upsample, slope, device="cuda")


def test_the_gpu_compiles_every_form_and_little_else():
    """What the cases above start there, counted here: compiling takes most of their time."""

    def run():
        for dtype, channels, out_channels, size, upsample, slope in ON_GPU:
            x = torch.empty(GPU_BATCH, channels, size, size + size % 2, dtype=dtype).requires_grad_()
            weight = torch.empty(out_channels, channels, 3, 3, dtype=dtype).requires_grad_()
            bias = torch.empty(out_channels, dtype=dtype).requires_grad_()
            y = replicate_conv2d(x, weight, bias, upsample=upsample, negative_slope=slope)
            torch.autograd.grad(y, (x, weight, bias), torch.empty_like(y))

    variants = recorded((9, 0), run)
    assert len(variants) <= 60
    forms = {}
    for variant in variants:
        constants = dict(variant.constants)
        if "PRECISION" in constants:
            form = constants["U"], constants["PACKED"], "slope" in constants
            forms.setdefault(variant.kernel.__name__, set()).add(form)
    every = {(u, packed, plain) for u, packed in ((1, False), (2, False), (2, True)) for plain in (False, True)}
    assert forms == dict.fromkeys(("forward_kernel", "data_gradient_kernel", "weight_gradient_kernel"), every)
