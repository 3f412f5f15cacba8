"""From a 1x1 map the transposed convolution is a matrix product: the same values, in channels_last."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fastvae.models.dcgan import DcganGenerator
from fastvae.models.transposed_conv import TransposedConv2d


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("kernel", "stride", "padding"), [(1, 1, 0), (4, 1, 0), (4, 2, 1), (5, 3, 2)])
@pytest.mark.parametrize("size", [(1, 1), (1, 2), (3, 3)])
def test_values_and_gradients_are_those_of_torch(kernel, stride, padding, bias, size):
    layer = TransposedConv2d(3, 5, kernel, stride=stride, padding=padding, bias=bias).double()
    x = torch.randn(2, 3, *size, dtype=torch.float64, requires_grad=True)
    expected = F.conv_transpose2d(x, layer.weight, layer.bias, stride=stride, padding=padding)
    found = layer(x)
    toward = torch.randn_like(expected)
    inputs = [x, *layer.parameters()]
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    for a, b in zip(*(torch.autograd.grad(y, inputs, toward) for y in (found, expected)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("image_size", "width"), [(16, 4), (32, 2), (64, 2)])
def test_the_generator_is_the_one_of_torchs_layers(image_size, width):
    generator = DcganGenerator(image_size, width, latent=7, stages=4).double()
    plain = [nn.ConvTranspose2d(7, 8 * width, image_size // 16, bias=False), nn.BatchNorm2d(8 * width), nn.ReLU()]
    for factor in (8, 4, 2):
        inputs, outputs = factor * width, factor * width // 2
        plain += [nn.ConvTranspose2d(inputs, outputs, 4, 2, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
    plain = nn.Sequential(*plain, nn.ConvTranspose2d(width, 3, 4, 2, 1), nn.Tanh()).double()
    plain.load_state_dict({key.removeprefix("layers."): value for key, value in generator.state_dict().items()})
    z = torch.randn(5, 7, dtype=torch.float64)
    found, expected = generator(z), plain(z[:, :, None, None])
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
    found.square().mean().backward()
    expected.square().mean().backward()
    for a, b in zip(generator.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("image_size", [16, 32, 64])
def test_every_map_and_every_gradient_is_in_channels_last(image_size):
    generator = DcganGenerator(image_size, 2, latent=7, stages=4).to(memory_format=torch.channels_last)
    seen = []

    def look(module, inputs, output):
        seen.append(output)
        output.register_hook(seen.append)

    for layer in generator.layers:
        layer.register_forward_hook(look)
    images = generator(torch.randn(3, 7))
    images.backward(torch.randn_like(images))
    maps = [x for x in seen if x.shape[2:] != (1, 1)]  # the strides of the others mean nothing
    assert len(seen) == 2 * len(generator.layers) and len(maps) >= 20
    assert all(x.is_contiguous(memory_format=torch.channels_last) for x in maps)


def test_a_weight_in_channels_last_is_not_copied():
    layer = TransposedConv2d(6, 4, 4, bias=False).to(memory_format=torch.channels_last)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        layer(torch.randn(2, 6, 1, 1))
    assert not {"aten::copy_", "aten::clone", "aten::contiguous"} & {event.key for event in profile.key_averages()}
