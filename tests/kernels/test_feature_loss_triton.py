"""The Triton kernel of `feature_loss`: interpreted on the CPU, and on a GPU where there is one."""

import pytest
import torch
import torch.nn.functional as F

from bench.measuring.closeness import assert_close
from fastvae.kernels import dispatch, feature_loss, feature_loss_ref, feature_loss_triton, provider
from fastvae.kernels.feature_loss import paper_weights
from fastvae.kernels.feature_loss_triton import MAX_LAYERS
from tests.kernels.interpreter import interpreted

# Single pixels, odd maps, one layer of three blocks, and an element alone.
ODD = [(2, 5, 17, 13), (2, 33, 1, 1), (1, 3, 5, 7), (1, 1, 1, 1), (2, 33, 17, 3), (1, 5, 1, 6)]
DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def maps(shapes, dtype, seed, device="cpu", memory_format=torch.contiguous_format):
    generator = torch.Generator().manual_seed(seed)
    made = (torch.randn(shape, generator=generator).to(device, dtype) for shape in shapes)
    return [x.contiguous(memory_format=memory_format) for x in made]


def plain(features, targets, weights):
    """As plain torch computes it, with sums in float32."""
    return sum(
        0.5 * weight * F.mse_loss(f.float(), t.float()) for f, t, weight in zip(features, targets, weights, strict=True)
    )


def exact(features, targets, weights):
    """The reference's sum in float64, on maps too large for a loop over images."""
    return sum(
        0.5 * weight * F.mse_loss(f.double(), t.double())
        for f, t, weight in zip(features, targets, weights, strict=True)
    )


def check(features, targets, *, through_relu=False):
    """Runs the op, forward and backward, and holds it to float64; returns the features' gradients."""
    weights = [1.0 + 0.5 * layer for layer in range(len(features))]
    assert provider("feature_loss", features[0]) == "triton"
    if through_relu:
        features = [f.relu() for f in features]
    features = [f.requires_grad_() for f in features]
    ours = feature_loss(features, targets, weights, through_relu=through_relu)
    results = [[ours.detach(), *torch.autograd.grad(ours, features)]]
    with dispatch.force("aten"):
        for f, inputs in ((plain, features), (exact, [x.detach().double().requires_grad_() for x in features])):
            loss = f(inputs, targets, weights)
            gradients = torch.autograd.grad(loss, inputs)
            if through_relu:
                gradients = [g * (x > 0) for g, x in zip(gradients, inputs, strict=True)]
            results.append([loss.detach(), *gradients])
    for got, expected, true in zip(*results, strict=True):
        assert_close(got, expected, true)
    return results[0][1:]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_odd_shapes(dtype):
    with interpreted():
        check(maps(ODD, dtype, 0), maps(ODD, dtype, 1))
        check(maps(ODD, dtype, 2), maps(ODD, dtype, 3), through_relu=True)


@pytest.mark.parametrize("shape", ODD, ids=str)
def test_one_layer(shape):
    with interpreted((7, 5)):
        check(maps([shape], torch.float32, 0), maps([shape], torch.float32, 1))


def test_equals_the_reference():
    shapes = [(2, 3, 5, 7), (2, 33, 3, 1)]
    features, targets, weights = maps(shapes, torch.float32, 0), maps(shapes, torch.float32, 1), paper_weights([3, 33])
    with interpreted():
        loss = feature_loss(features, targets, weights)
    assert torch.allclose(loss.double(), feature_loss_ref(features, targets, weights), rtol=1e-6)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_larger_block(dtype, monkeypatch):
    monkeypatch.setattr(feature_loss_triton, "_LARGE", 1)
    shapes = [(1, 3, 5, 7), (3, 8, 16, 32)]  # the one is all tail, the other three whole blocks in half precision
    with interpreted():
        check(maps(shapes, dtype, 0), maps(shapes, dtype, 1))


def test_layouts():
    def views(seed):
        wide = torch.randn(2, 6, 9, 8, generator=torch.Generator().manual_seed(seed))
        return {
            "contiguous": wide,
            "channels_last": wide.contiguous(memory_format=torch.channels_last),
            "transposed": wide.permute(3, 0, 2, 1).contiguous().permute(1, 3, 2, 0),
            "every second": wide.repeat_interleave(2, 1)[:, ::2],
            "expanded": wide[:, :, :, :1].expand(wide.shape),
        }

    features, targets = views(0), views(1)
    with interpreted():
        for feature in features.values():
            check([feature.detach()], [targets["channels_last"]])
        for target in targets.values():
            check([features["channels_last"].detach(), features["contiguous"].detach()], [target, target])


def launches(run):
    """The arguments of each kernel that run() starts, by name; nothing runs."""
    seen = []

    def record(kernel, grid, args, options):
        seen.append((dict(zip(kernel.arg_names, args, strict=False)) | options, grid))

    with dispatch.force("triton", capability=(9, 0), launch=record):
        run()
    return seen


def test_one_launch_for_all_layers():
    features, targets = maps(ODD, torch.float32, 0), maps(ODD, torch.float32, 1)

    def run():
        loss = feature_loss([f.requires_grad_() for f in features], targets, [1.0] * len(ODD))
        torch.autograd.grad(loss, features)

    ((arguments, _),) = launches(run)
    assert arguments["f5"].data_ptr() == features[5].data_ptr() and arguments["f6"] is None


def test_more_layers_than_one_launch_takes():
    shapes = [(1, 3, 5, 1 + layer) for layer in range(2 * MAX_LAYERS + 1)]
    features, targets = maps(shapes, torch.float32, 0), maps(shapes, torch.float32, 1)
    assert [a["LAYERS"] for a, _ in launches(lambda: feature_loss(features, targets, [1.0] * 33))] == [16, 16, 1]
    with interpreted():
        check(features, targets)


def test_the_same_from_run_to_run():
    features, targets = maps(ODD, torch.bfloat16, 0), maps(ODD, torch.bfloat16, 1)
    with interpreted():
        first, second = (check(features, targets) for _ in range(2))
        losses = [feature_loss(features, targets, [1.0] * len(ODD)) for _ in range(2)]
    assert torch.equal(*losses)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_a_nan_stays_one():
    x, y = torch.ones(1, 1, 2, 2), torch.zeros(1, 1, 2, 2)
    x[..., 0] = float("nan")
    x.requires_grad_()
    for context in (interpreted(), dispatch.force("aten")):
        with context:
            loss = feature_loss([x], [y], (1.0,), through_relu=True)
            (gradient,) = torch.autograd.grad(loss, x)
        assert loss.isnan()
        assert gradient.isnan().tolist() == x.isnan().tolist()


@pytest.mark.filterwarnings("ignore:(divide by zero|invalid value):RuntimeWarning")
def test_an_empty_layer_gives_nan_as_the_mean_of_nothing():
    shapes = [(1, 3, 2, 2), (0, 3, 4, 4), (1, 2, 1, 1)]
    for chosen in (shapes, shapes[1:2]):
        features = [x.requires_grad_() for x in maps(chosen, torch.float32, 0)]
        with interpreted():
            loss = feature_loss(features, maps(chosen, torch.float32, 1), [1.0] * len(chosen))
            gradients = torch.autograd.grad(loss, features)
        assert loss.isnan()
        assert [g.shape for g in gradients] == [f.shape for f in features]
        assert all(g.isfinite().all() for g in gradients)


@pytest.mark.gpu
@pytest.mark.parametrize("memory_format", [torch.channels_last, torch.contiguous_format], ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_on_the_gpu(dtype, memory_format, poisoned_memory):
    if provider("feature_loss", torch.empty(1, device="cuda", dtype=dtype)) != "triton":
        pytest.skip(f"{torch.cuda.get_device_name()} runs ATen in {dtype}")
    taps = [(64, 64, 64), (128, 32, 32), (256, 16, 16), (512, 8, 8), (512, 4, 4)]
    for shapes in ([(64, *tap) for tap in taps], [(1, *tap) for tap in taps], ODD):
        features, targets = (maps(shapes, dtype, seed, "cuda", memory_format) for seed in range(2))
        first = check(features, targets)
        second = check(features, targets)
        assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
        check(features, targets, through_relu=True)


@pytest.mark.gpu
def test_compiled_on_the_gpu():
    shapes = [(8, 64, 32, 32), (8, 128, 16, 16), (8, 3, 5, 7)]
    features, targets = (maps(shapes, torch.float32, seed, "cuda", torch.channels_last) for seed in range(2))
    features = [f.requires_grad_() for f in features]

    def step(features, targets):
        return feature_loss([f.relu() for f in features], [t.relu() for t in targets], (1.0, 2.0, 3.0))

    results = [f(features, targets) for f in (torch.compile(step, fullgraph=True), step)]
    assert torch.allclose(*results)
    for ours, eager in zip(*(torch.autograd.grad(r, features) for r in results), strict=True):
        assert torch.allclose(ours, eager)
