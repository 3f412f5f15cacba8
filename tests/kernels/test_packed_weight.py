"""Weights packed for the kernels of `replicate_conv2d`: the layout, many in one launch, once for both directions."""

import pytest
import torch
from torch.library import opcheck

from fastvae.kernels import dispatch, pack_weights, replicate_conv2d, replicate_conv2d_with_sums
from fastvae.kernels.packed_weight import MAX_WEIGHTS, _pack, packed_weight_ref
from tests.kernels import interpreter
from tests.kernels.interpreter import interpreted

# O, C and U of every form, with sizes of 1, and more numbers than one program has.
WEIGHTS = [(1, 1, 1), (5, 3, 1), (33, 5, 1), (1, 1, 2), (3, 7, 2), (4, 1, 2), (5, 3, 2), (17, 9, 2)]


def whole_numbers(o, c, *, channels_last=False):
    """A weight whose sums are exact in any precision and order."""
    weight = torch.randint(-8, 9, (o, c, 3, 3)).float()
    return weight.contiguous(memory_format=torch.channels_last) if channels_last else weight


@pytest.fixture
def launched(monkeypatch):
    """The kernels that the interpreter has run, by name."""
    launch, names = interpreter._launch, []

    def recording(kernel, *rest):
        names.append(kernel.fn.__name__)
        launch(kernel, *rest)

    monkeypatch.setattr(interpreter, "_launch", recording)
    return names


@pytest.mark.parametrize(("o", "c", "upsample"), WEIGHTS)
def test_reference_is_the_definition(o, c, upsample):
    weight = whole_numbers(o, c)
    packed, expected = packed_weight_ref(weight, upsample), []
    phases = [(p, q) for p in range(upsample) for q in range(upsample)]
    sums = {
        (p, q, s, t): sum(
            weight[:, :, a, b]
            for a in range(3)
            for b in range(3)
            if (p + a - 1) // upsample == s and (q + b - 1) // upsample == t
        )
        + torch.zeros(o, c)
        for p, q in phases
        for s in (-1, 0, 1)
        for t in (-1, 0, 1)
    }
    if upsample == 2 and o > 4:
        expected = [sums[p, q, s, t] for p, q in phases for s in (p - 1, p) for t in (q - 1, q)]
    else:
        expected = [torch.cat([sums[p, q, s, t] for p, q in phases]) for s in (-1, 0, 1) for t in (-1, 0, 1)]
    assert torch.equal(packed, torch.stack(expected))
    # Each tap is read once in every phase.
    assert torch.equal(packed.sum((0, 1)), weight.sum((0, 2, 3)) * upsample**2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("channels_last", [False, True])
def test_all_are_packed_in_one_launch(channels_last, dtype, launched):
    weights = [whole_numbers(o, c, channels_last=channels_last) for o, c, _ in WEIGHTS]
    weights[1] = weights[1].permute(0, 1, 3, 2)  # neither of the two layouts
    upsamples = [u for _, _, u in WEIGHTS]
    with interpreted():
        packed = pack_weights(weights, upsamples, dtype)
    assert launched == ["pack_weights_kernel"]
    for found, weight, upsample in zip(packed, weights, upsamples, strict=True):
        assert torch.equal(found, packed_weight_ref(weight, upsample).to(dtype))


def test_more_weights_than_a_launch_takes(launched):
    weights = [whole_numbers(2, 3) for _ in range(MAX_WEIGHTS + 2)]
    with interpreted():
        packed = pack_weights(weights, [1] * len(weights), torch.float16)
    assert launched == 2 * ["pack_weights_kernel"]
    for found, weight in zip(packed, weights, strict=True):
        assert torch.equal(found, packed_weight_ref(weight, 1).half())


def test_taps_are_summed_before_they_are_rounded():
    weight = 1 + torch.rand(6, 4, 3, 3) / 256  # bfloat16 rounds most of them to 1
    with interpreted():
        (packed,) = pack_weights([weight], [2], torch.bfloat16)
    assert torch.equal(packed, packed_weight_ref(weight.double(), 2).bfloat16())


@pytest.mark.parametrize("out_channels", [3, 5])
@pytest.mark.parametrize("upsample", [1, 2])
def test_forward_and_backward_are_five_launches_and_pack_once(upsample, out_channels, launched):
    inputs = [torch.randn(2, 4, 5, 3), torch.randn(out_channels, 4, 3, 3)]
    inputs = [t.requires_grad_() for t in inputs]
    with interpreted():
        y = replicate_conv2d(*inputs, upsample=upsample)
        grad = torch.randn_like(y)
        expected = [y, *torch.autograd.grad(y, inputs, grad)]
        directions = ["forward", "data_gradient", "weight_gradient", "reduce_weight_gradient"]
        assert launched == [f"{name}_kernel" for name in ("pack_weights", *directions)]
        (packed,) = pack_weights(inputs[1:], [upsample], torch.float32)
        assert not packed.requires_grad
        launched.clear()
        y = replicate_conv2d(*inputs, upsample=upsample, packed=packed)
        found = [y, *torch.autograd.grad(y, inputs, grad)]
        assert "pack_weights_kernel" not in launched and len(launched) == 4
        sums = replicate_conv2d_with_sums(*inputs, upsample=upsample, packed=packed)
        assert "pack_weights_kernel" not in launched and torch.equal(sums[0], y)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_without_triton_nothing_is_packed_and_the_argument_is_ignored():
    x, weight = torch.randn(1, 3, 4, 4), torch.randn(5, 3, 3, 3)
    assert pack_weights([weight], [2], torch.float32) == [None]
    assert pack_weights([], [], torch.float32) == []
    with dispatch.force("triton"):
        assert pack_weights([], [], torch.float32) == []
    packed = packed_weight_ref(weight, 2)
    assert torch.equal(replicate_conv2d(x, weight, upsample=2, packed=packed), replicate_conv2d(x, weight, upsample=2))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_registered_as_torch_wants_it(dtype):
    opcheck(_pack, ([whole_numbers(o, c) for o, c, _ in WEIGHTS], [u for _, _, u in WEIGHTS], dtype))


def test_compiled_with_a_packed_weight():
    """The op's form for CPUs in place of the kernel, which the compiler cannot run here."""

    def pack_anyway(weights, upsamples, dtype):
        return _pack([w.detach() for w in weights], upsamples, dtype)

    x, weight = torch.randn(1, 3, 4, 4), torch.randn(5, 3, 3, 3, requires_grad=True)

    def call(x, weight):
        (packed,) = pack_anyway([weight], [2], torch.float32)
        return replicate_conv2d(x, weight, upsample=2, packed=packed)

    y = torch.compile(call, fullgraph=True, backend="aot_eager")(x, weight)
    (found,) = torch.autograd.grad(y.square().sum(), weight)
    (expected,) = torch.autograd.grad(replicate_conv2d(x, weight, upsample=2).square().sum(), weight)
    assert torch.equal(found, expected)


@pytest.mark.parametrize(
    ("weights", "upsamples", "words"),
    [
        ([torch.zeros(2, 3, 3, 3)], [3], r"1 or 2 for each of 1 weights; got \[3\]"),
        ([torch.zeros(2, 3, 3, 3)], [1, 1], "1 or 2 for each of 1 weights"),
        ([torch.zeros(2, 3, 5, 5)], [1], r"\[O, C, 3, 3\]; got \[2, 3, 5, 5\]"),
        ([torch.zeros(2, 3, 3, 3), torch.zeros(2, 3, 3, 3).half()], [1, 1], "float32 on cpu and torch.float16"),
        ([torch.zeros(2, 3, 3, 3), torch.zeros(2, 3, 3, 3, device="meta")], [1, 1], "float32 on meta"),
    ],
)
def test_refuses(weights, upsamples, words):
    with pytest.raises(ValueError, match=words):
        pack_weights(weights, upsamples, torch.float32)


@pytest.mark.parametrize(
    "packed", [torch.zeros(16, 5, 3).half(), torch.zeros(9, 5, 3), torch.zeros(16, 5, 3, device="meta")], ids=str
)
def test_a_weight_packed_for_another_call_is_refused(packed):
    with pytest.raises(ValueError, match=r"pack_weights makes it, \[16, 5, 3\] of torch.float32 on cpu; got"):
        replicate_conv2d(torch.zeros(1, 3, 4, 4), torch.zeros(5, 3, 3, 3), upsample=2, packed=packed)
