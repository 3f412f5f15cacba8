"""`conv_relu` against its specification: values, gradients, layouts, autocast, and every form on a GPU."""

import pytest
import torch
import torch.nn.functional as F
from torch.library import opcheck

from bench.measuring.closeness import assert_close
from fastvae.kernels import conv_relu, conv_relu_forms, conv_relu_ref, provider
from fastvae.kernels.conv_relu import _forward, cost

CASES = [((2, 3, 6, 5), 4, 3, 1), ((1, 4, 1, 1), 2, 3, 1), ((2, 2, 5, 7), 3, 1, 0), ((1, 3, 5, 5), 2, 5, 2)]


def operands(case, dtype=torch.float64, device="cpu", layout=torch.channels_last):
    shape, outputs, kernel, padding = case
    generator = torch.Generator().manual_seed(0)
    x, weight, bias = (
        torch.randn(size, generator=generator, dtype=torch.float64).to(device, dtype)
        for size in (shape, (outputs, shape[1], kernel, kernel), (outputs,))
    )
    return x.contiguous(memory_format=layout), weight, bias, padding


def test_by_hand():
    x, weight = torch.tensor([[[[1.0, -4.0]]]]), torch.tensor([[[[2.0]]]])
    assert conv_relu(x, weight, torch.tensor([1.0])).flatten().tolist() == [3.0, 0.0]


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format], ids=str)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_equals_reference(case, layout):
    x, weight, bias, padding = operands(case, layout=layout)
    y = conv_relu(x, weight, bias, padding=padding)
    assert torch.allclose(y, conv_relu_ref(x, weight, bias, padding), rtol=1e-12, atol=1e-12)
    assert y.is_contiguous(memory_format=torch.channels_last)
    assert torch.allclose(y, _forward(x, weight, bias, padding), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_gradients(case):
    x, weight, bias, padding = operands(case)
    for operand in (x, weight, bias):
        operand.requires_grad_()
    assert torch.autograd.gradcheck(lambda *o: _forward(*o, padding), (x, weight, bias))
    frozen = _forward(x, weight.detach(), bias.detach(), padding)
    (gradient,) = torch.autograd.grad(frozen.square().sum(), x)
    expected = torch.autograd.grad(conv_relu_ref(x, weight, bias, padding).square().sum(), x)[0]
    assert torch.allclose(gradient, expected)


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format], ids=str)
def test_registered_as_torch_wants_it(layout):
    x, weight, bias, padding = operands(CASES[0], layout=layout)
    opcheck(_forward, (x.requires_grad_(), weight.requires_grad_(), bias.requires_grad_(), padding))


def test_autocast_casts_as_for_a_convolution():
    x, weight, bias, padding = operands(CASES[0], torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        y = conv_relu(x, weight, bias, padding=padding)
        assert torch.equal(y, F.conv2d(x, weight, bias, padding=padding).relu())
        assert conv_relu(*(t.double() for t in (x, weight, bias)), padding=padding).dtype == torch.float64


def test_a_nan_stays_one():
    x, weight, bias, padding = operands(CASES[0])
    x[0, 0, 0, 0] = torch.nan
    assert _forward(x, weight, bias, padding)[0, :, 0, 0].isnan().all()


X, W, B = torch.zeros(1, 2, 4, 4), torch.zeros(3, 2, 3, 3), torch.zeros(3)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ((X[0], W, B), r"got \[2, 4, 4\], \[3, 2, 3, 3\] and \[3\]"),
        ((X, W[:, :1], B), r"\[3, 1, 3, 3\]"),
        ((X, W, B[:1]), r"and \[1\]"),
        ((X, W.double(), B), "one floating-point dtype; got torch.float32, torch.float64"),
        ((X, W, B.to("meta")), "one device; got cpu, cpu and meta"),
        ((X[:, :, :2], W, B), r"no smaller than the filter; got \[2, 4\] with padding 0"),
    ],
)
def test_refuses(args, words):
    with pytest.raises(ValueError, match=words):
        conv_relu(*args)


def test_cost():
    found = cost(2, 3, 4, (5, 6), 3, torch.bfloat16)
    assert found.flops == 2 * 2 * 5 * 6 * 3 * 4 * 9
    assert found.bytes == 2 * (2 * 30 * (3 + 4) + 4 * (3 * 9 + 1))


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    "case", [((128, 8, 64, 64), 64, 3, 1), ((128, 64, 64, 64), 64, 3, 1), ((3, 512, 5, 7), 512, 3, 1)], ids=str
)
def test_on_the_gpu(case, dtype, without_tf32):
    """The form that the trial chose, and each that it found right, in memory full of NaN."""
    x, weight, bias, padding = operands(case, dtype, "cuda")
    if provider("conv_relu", x) != "cudnn":
        pytest.skip(f"{torch.cuda.get_device_name()} runs ATen in {dtype}")
    weight = weight / weight[0].numel() ** 0.5
    plain, exact = conv_relu_forms.aten(x, weight, bias, padding), conv_relu_ref(x, weight, bias, padding)
    y = conv_relu(x, weight, bias, padding=padding)
    assert_close(y, plain, exact)
    assert y.is_contiguous(memory_format=torch.channels_last)
    forms = {conv_relu_forms.ONE_MORE_PASS: conv_relu_forms.one_more_pass, conv_relu_forms.FUSED: conv_relu_forms.fused}
    (trial,) = [c for c in conv_relu_forms.choices() if (c["x"], c["dtype"]) == (list(x.shape), str(dtype)[6:])]
    assert conv_relu_forms.ONE_MORE_PASS in trial["milliseconds"]
    for name in forms.keys() & trial["milliseconds"].keys():
        poison = torch.full_like(plain, torch.nan)
        del poison
        assert_close(forms[name](x, weight, bias, padding), plain, exact)


@pytest.mark.gpu
def test_a_captured_call_replays(without_tf32):
    x, weight, bias, padding = operands(((2, 8, 12, 12), 16, 3, 1), torch.float32, "cuda")
    expected = conv_relu(x, weight, bias, padding=padding)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y = conv_relu(x, weight, bias, padding=padding)
        untried = conv_relu(x[:1], weight, bias, padding=padding)
    for result in (y, untried):
        result.fill_(torch.nan)
    graph.replay()
    assert torch.allclose(y, expected, rtol=1e-5, atol=1e-5)
    assert torch.allclose(untried, expected[:1], rtol=1e-5, atol=1e-5)
