"""Eight channels, five of them zero, change nothing."""

import torch

from bench.measuring.closeness import relative_error
from fastvae.models import image_conv
from fastvae.models.image_conv import ImageConv2d


def test_zero_channels_change_neither_result_nor_gradients(monkeypatch):
    torch.manual_seed(0)
    conv = ImageConv2d(3, 4, 4, stride=2, padding=1).double()
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64, requires_grad=True)
    shapes = []
    as_it_is, forward = conv(x), conv._conv_forward

    def note(x, weight, bias):
        shapes.extend(((x.shape[1], x.is_contiguous(memory_format=torch.channels_last)), (weight.shape[1], True)))
        return forward(x, weight, bias)

    monkeypatch.setattr(image_conv, "_in_half_precision", lambda x: True)
    monkeypatch.setattr(conv, "_conv_forward", note)
    padded = conv(x)
    assert shapes == [(8, True), (8, True)]
    wanted = (x, *conv.parameters())
    direction = torch.randn_like(padded)
    for a, b in zip(
        (padded, *torch.autograd.grad(padded, wanted, direction)),
        (as_it_is, *torch.autograd.grad(as_it_is, wanted, direction)),
        strict=True,
    ):
        assert relative_error(a, b) < 1e-12


def test_on_a_cpu_the_image_is_taken_as_it_is():
    conv = ImageConv2d(3, 4, 4)
    with torch.autocast("cpu", torch.bfloat16):
        assert not image_conv._in_half_precision(torch.zeros(1, 3, 8, 8))
        assert conv(torch.zeros(1, 3, 8, 8)).dtype == torch.bfloat16
