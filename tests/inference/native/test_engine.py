"""Every kind of layer of the CPU engine against torch in float64, for vectors of 4, 8 and 16 floats."""

import pytest
import torch
import torch.nn.functional as F

from fastvae.inference.native.engine import Activation, Engine, Form, Layer, Map
from fastvae.inference.native.vae import parity_filters
from fastvae.machine import host_compiler

pytestmark = pytest.mark.skipif(host_compiler() is None, reason="needs a C++ compiler")

# Wider vectors than the processor has are compiled into several: slow, and the same numbers.
LANES = pytest.mark.parametrize("lanes", [4, 8, 16])
SLOPE = 0.2


DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)


def engine(lanes: int, threads: int = 2, images_at_a_time: int = 2, dtype: torch.dtype = torch.float32) -> Engine:
    # Optimised a little: the wider ones take long to compile, and the same templates are tested.
    return Engine(threads, images_at_a_time, dtype, flags=(f"-DFASTVAE_LANES={lanes}", "-O1"))


def random(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def padded(x: torch.Tensor, replicate: bool) -> torch.Tensor:
    return F.pad(x, (1, 1, 1, 1), mode="replicate" if replicate else "constant")


def read_out(net: Engine, layers: list[Layer], source: Map, of: Map, x: torch.Tensor) -> torch.Tensor:
    """Runs layers and reads a whole map, through a layer that sums each pixel into a vector of its own."""
    found = torch.empty(len(x), of.channels, of.height, of.width)
    identity = torch.eye(of.channels)[:, None, None]
    for row in range(of.height):
        for column in range(of.width):
            pixel = net.add_map(1, 1, of.channels)
            filters = [(identity, torch.zeros(of.channels), (row, column), (0, 0))]
            copy = net.add_direct("a layer", of, pixel, filters, positions=(1, 1))
            values = torch.empty(len(x), of.channels)
            net.run([*layers, copy], source, x, vectors=[(pixel, values)])
            found[:, :, row, column] = values
    return found


def copied(net: Engine, source: Map, *, replicate: bool) -> tuple[Map, Layer]:
    """A map with the source's pixels: what is read in leaves the border zero, what is computed fills it."""
    to = net.add_map(source.height, source.width, source.channels, replicate=replicate)
    filters = [(torch.eye(source.channels)[:, None, None], torch.zeros(source.channels), (0, 0), (0, 0))]
    return to, net.add_direct("a layer", source, to, filters, positions=(source.height, source.width))


def assert_close(found: torch.Tensor, expected: torch.Tensor, bound: float = 2e-6) -> None:
    assert (found - expected).abs().max() <= bound * expected.abs().max()


@LANES
@DTYPES
@pytest.mark.parametrize("replicate", [False, True])
@pytest.mark.parametrize("outputs", [5, 32])
def test_direct_with_residual(lanes, dtype, replicate, outputs):
    net = engine(lanes, dtype=dtype)
    x, weight, bias = random(3, 7, 5, 6), random(outputs, 7, 3, 3), random(outputs)
    source, second, third = (net.add_map(5, 6, c, replicate=replicate) for c in (7, outputs, outputs))
    first, zero = copied(net, source, replicate=replicate)
    filters = [(weight.permute(0, 2, 3, 1), bias, (-1, -1), (0, 0))]
    one = net.add_direct("a layer", first, second, filters, positions=(5, 6), activation=Activation.RELU)
    again = random(outputs, outputs, 3, 3) / 9
    filters = [(again.permute(0, 2, 3, 1), bias, (-1, -1), (0, 0))]
    options = {"residual": second, "activation": Activation.LEAKY_RELU, "slope": SLOPE}
    two = net.add_direct("a layer", second, third, filters, positions=(5, 6), **options)
    y = F.relu(F.conv2d(padded(x.double(), replicate), weight.double(), bias.double()))
    z = F.leaky_relu(F.conv2d(padded(y, replicate), again.double(), bias.double()) + y, SLOPE)
    assert_close(read_out(net, [zero, one, two], source, third, x), z, 2e-6 if dtype == torch.float32 else 1e-2)


# Errors relative to the largest value.
BOUNDS = {
    Form.CONV3X3_TILE2: {torch.float32: 2e-6, torch.bfloat16: 1.5e-2},
    Form.CONV3X3_TILE4: {torch.float32: 5e-6, torch.bfloat16: 3e-2},
    Form.UPSAMPLING: {torch.float32: 2e-6, torch.bfloat16: 1.5e-2},
    Form.DOWNSAMPLING: {torch.float32: 2e-6, torch.bfloat16: 1.5e-2},
}


@LANES
@DTYPES
@pytest.mark.parametrize("replicate", [False, True])
@pytest.mark.parametrize("form", Form)
def test_winograd_with_residual(lanes, dtype, replicate, form):
    net = engine(lanes, dtype=dtype)
    taps = 4 if form == Form.DOWNSAMPLING else 3
    x, weight, bias = random(3, 32, 8, 4), random(32, 32, taps, taps), random(32)
    height, width = {Form.UPSAMPLING: (16, 8), Form.DOWNSAMPLING: (4, 2)}.get(form, (8, 4))
    source = net.add_map(8, 4, 32)
    first, copy = copied(net, source, replicate=replicate or form == Form.UPSAMPLING)
    second = net.add_map(height, width, 32, replicate=replicate)
    third = net.add_map(height, width, 32)
    options = {"activation": Activation.LEAKY_RELU, "slope": SLOPE}
    assert net.takes_winograd(first, second, form)
    nhwc = weight.permute(0, 2, 3, 1)
    layer = net.add_winograd("a layer", first, second, nhwc, bias, form=form)
    with_skip = net.add_winograd("a layer", first, third, nhwc, bias, form=form, residual=second, **options)
    given = x.double()
    if form == Form.UPSAMPLING:
        y = F.conv2d(padded(F.interpolate(given, scale_factor=2.0), True), weight.double(), bias.double())
    else:
        stride = 2 if form == Form.DOWNSAMPLING else 1
        y = F.conv2d(padded(given, replicate), weight.double(), bias.double(), stride=stride)
    bound = BOUNDS[form][dtype]
    assert_close(read_out(net, [copy, layer], source, second, x), y, bound)
    assert_close(read_out(net, [copy, layer, with_skip], source, third, x), F.leaky_relu(2 * y, SLOPE), bound)


@LANES
def test_strided_and_upsampling(lanes):
    net = engine(lanes)
    x, weight, bias = random(2, 3, 8, 6), random(6, 3, 4, 4), random(6)
    first, second, third = net.add_map(8, 6, 3), net.add_map(4, 3, 6, replicate=True), net.add_map(8, 6, 5)
    filters = [(weight.permute(0, 2, 3, 1), bias, (-1, -1), (0, 0))]
    down = net.add_direct("a layer", first, second, filters, positions=(4, 3), stride=2)
    back = random(5, 6, 3, 3)
    filters = [
        (kernel, bias[:5], (row - 1, column - 1), (row, column))
        for row, kernels in enumerate(parity_filters(back))
        for column, kernel in enumerate(kernels)
    ]
    up = net.add_direct("a layer", second, third, filters, positions=(4, 3), step=2)
    y = F.conv2d(x.double(), weight.double(), bias.double(), stride=2, padding=1)
    z = F.conv2d(padded(F.interpolate(y, scale_factor=2.0), True), back.double(), bias[:5].double())
    assert_close(read_out(net, [down, up], first, third, x), z)


@LANES
@pytest.mark.parametrize("kind", ["float", "channels_last", "bytes"])
def test_to_image_and_inputs(lanes, kind):
    net = engine(lanes)
    x, weight, bias = random(5, 6, 3, 4), random(3, 6, 3, 3), random(3) * 3
    if kind == "bytes":
        x = (x * 50 + 128).clamp(0, 255).to(torch.uint8)
    as_float = x.double() / 127.5 - 1 if kind == "bytes" else x.double()
    given = x.contiguous(memory_format=torch.channels_last) if kind == "channels_last" else x
    source = net.add_map(3, 4, 6)
    between, copy = copied(net, source, replicate=True)
    by_parity = torch.stack([torch.stack(row) for row in parity_filters(weight)])
    layers = [copy, net.add_to_image("a layer", between, by_parity, bias)]
    images = torch.full((5, 3, 6, 8), float("nan"))
    net.run(layers, source, given, images=images)
    up = padded(F.interpolate(as_float, scale_factor=2.0), True)
    assert_close(images, torch.tanh(F.conv2d(up, weight.double(), bias.double())))


@LANES
def test_tanh_over_its_range(lanes):
    net = engine(lanes)
    x = torch.cat([torch.linspace(-12, 12, 4001), torch.tensor([-1e30, 1e30, float("inf"), 0.0])])[:, None, None, None]
    source = net.add_map(1, 1, 1)
    between, copy = copied(net, source, replicate=True)
    layers = [copy, net.add_to_image("a layer", between, torch.full((2, 2, 1, 2, 2, 1), 0.25), torch.zeros(1))]
    images = torch.empty(len(x), 1, 2, 2)
    net.run(layers, source, x, images=images)
    assert (images - torch.tanh(x.double())).abs().max() <= 3e-7


@LANES
@pytest.mark.parametrize("activation", Activation)
def test_nan_stays_nan_and_nothing_else_becomes_one(lanes, activation):
    """Through every activation, Winograd's tiles and tanh; images of a batch do not touch each other."""
    net = engine(lanes)
    x = random(3, 32, 4, 4)
    x[1, 5, 2, 1] = float("nan")
    source, third = net.add_map(4, 4, 32), net.add_map(4, 4, 32, replicate=True)
    options = {"activation": activation, "slope": SLOPE}
    last = net.add_to_image("a layer", third, torch.ones(2, 2, 3, 2, 2, 32), torch.zeros(3))
    eye = torch.eye(32)[:, None, None]
    direct = net.add_direct(
        "a layer", source, third, [(eye, torch.zeros(32), (0, 0), (0, 0))], positions=(4, 4), **options
    )
    winograd = net.add_winograd(
        "a layer", source, third, random(32, 3, 3, 32), random(32), form=Form.CONV3X3_TILE4, **options
    )
    for layer in (direct, winograd):
        images = torch.empty(3, 3, 8, 8)
        net.run([layer, last], source, x, images=images)
        assert images[1].isnan().any() and not images[::2].isnan().any()
        one = torch.empty(1, 3, 8, 8)
        net.run([layer, last], source, torch.full((1, 32, 4, 4), float("nan")), images=one)
        assert one.isnan().all()


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("images_at_a_time", [1, 8])
def test_threads_and_pieces_change_nothing(threads, images_at_a_time):
    x, weight = random(7, 16, 16, 16), random(16, 3, 3, 16)
    results = []
    for settings in ((1, 7), (threads, images_at_a_time)):
        net = engine(8, *settings)
        first, second = net.add_map(16, 16, 16), net.add_map(16, 16, 16)
        layers = [net.add_winograd("a layer", first, second, weight, random(16), form=Form.CONV3X3_TILE4)]
        out = net.add_map(1, 1, 16)
        last = [(random(16, 16, 16, 16), random(16), (0, 0), (0, 0))]
        layers.append(net.add_direct("a layer", second, out, last, positions=(1, 1)))
        values = torch.empty(7, 16)
        net.run(layers, first, x, vectors=[(out, values)])
        results.append(values)
    assert torch.equal(*results)
