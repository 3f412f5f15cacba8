"""The Triton kernel of `conv_relu`: interpreted on the CPU, and on a GPU where there is one."""

import pytest
import torch
from torch.library import opcheck

from bench.measuring.closeness import assert_close
from fastvae.kernels import conv_relu, conv_relu_ref, conv_relu_triton
from fastvae.kernels.conv_relu import _forward
from fastvae.kernels.conv_relu_triton import bias_relu_
from tests.kernels.interpreter import interpreted
from tests.kernels.test_conv_relu import CASES, operands

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
# One element, one channel, odd channels over several blocks, a block's end within a pixel, nothing at all.
SHAPES = [(1, 1, 1, 1), (2, 1, 5, 3), (1, 5, 33, 31), (2, 64, 9, 7), (0, 3, 4, 4), (3, 7, 1, 1)]


def maps(shape, dtype, device="cpu"):
    generator = torch.Generator().manual_seed(0)
    y, bias = (torch.randn(size, generator=generator).to(device, dtype) for size in (shape, shape[1:2]))
    return y.contiguous(memory_format=torch.channels_last), bias


def check(y, bias):
    exact = (y.double() + bias.double().view(1, -1, 1, 1)).clamp_min(0)
    plain = (y + bias.view(1, -1, 1, 1)).relu()
    found = bias_relu_(y, bias)
    assert found is y
    assert_close(found, plain, exact)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_bias_and_relu(shape, dtype):
    with interpreted():
        check(*maps(shape, dtype))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_op_with_one_more_pass(case, dtype):
    x, weight, bias, padding = operands(case, dtype)
    plain = conv_relu(x, weight, bias, padding=padding)
    with interpreted():
        y = conv_relu(x, weight, bias, padding=padding)
    assert_close(y, plain, conv_relu_ref(x, weight, bias, padding))
    assert y.is_contiguous(memory_format=torch.channels_last)


def test_registered_as_torch_wants_it():
    x, weight, bias, padding = operands(CASES[0], torch.float32)
    with interpreted():
        opcheck(_forward, (x.requires_grad_(), weight.requires_grad_(), bias.requires_grad_(), padding))


def test_a_nan_stays_one_and_infinities_too():
    y = torch.tensor([torch.nan, torch.inf, -torch.inf, 1.0]).view(1, 1, 2, 2)
    with interpreted():
        bias_relu_(y, torch.tensor([-2.0]))
    assert y[0, 0, 0, 0].isnan() and y.flatten()[1:].tolist() == [torch.inf, 0, 0]


def test_writes_nothing_beside_the_map():
    memory = torch.full((100,), -5.0)
    y = memory[10:70].view(2, 5, 2, 3).permute(0, 3, 1, 2)
    with interpreted():
        bias_relu_(y, torch.zeros(3))
    assert (memory[10:70] == 0).all() and (memory[:10] == -5).all() and (memory[70:] == -5).all()


def test_another_layout_is_refused():
    with pytest.raises(ValueError, match="channels_last; got strides"):
        bias_relu_(torch.zeros(2, 3, 4, 4), torch.zeros(3))


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_on_the_gpu(dtype):
    if dtype == torch.bfloat16 and torch.cuda.get_device_capability() < (8, 0):
        pytest.skip("no bfloat16")
    for shape in (*SHAPES, (128, 64, 64, 64), (3, 17, 100, 101)):
        check(*maps(shape, dtype, "cuda"))


@pytest.mark.gpu
def test_more_elements_than_32_bits_count():
    block = 2**31 // 64 + 1
    if torch.cuda.get_device_properties(0).total_memory < 16 * 2**30:
        pytest.skip("needs 8 GiB")
    y = torch.full((1, 64, block, 1), -1.0, device="cuda", dtype=torch.float16)
    y = y.contiguous(memory_format=torch.channels_last)
    conv_relu_triton.bias_relu_(y, torch.full((64,), 3.0, device="cuda", dtype=torch.float16))
    assert (y[0, :, -1] == 2).all() and (y[0, :, 0] == 2).all()
