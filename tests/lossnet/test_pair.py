"""Both sides in one batch: features and gradients of two separate calls, and none of the work that is not needed."""

import pytest
import torch
import torch.nn.functional as F
from torch._dynamo.backends.common import aot_autograd

from bench.measuring.closeness import assert_close
from fastvae.kernels import force
from fastvae.lossnet import TAPS, LossNetwork
from fastvae.lossnet.pair import _max_pool2d_backward_by_comparison, max_pool2d_backward
from fastvae.native_library import host_compiler


def images(shape, dtype=torch.float32):
    generator = torch.Generator().manual_seed(1)
    real, fake = (torch.rand(shape, dtype=torch.float64, generator=generator) * 2 - 1 for _ in range(2))
    return [x.to(dtype).contiguous(memory_format=torch.channels_last) for x in (real, fake)]


def network(taps=TAPS, dtype=torch.float32, *, aligned=False):
    """`aligned`: laid out as on a GPU, with eight input channels."""
    torch.manual_seed(0)
    with force("cudnn" if aligned else "aten", op="conv_relu"):
        return LossNetwork(taps).to(dtype, memory_format=torch.channels_last)


def two_calls(network, real, fake):
    """What `forward_pair` stands for."""
    with torch.no_grad():
        features = network(real)
    return features, network(fake)


def loss(features, fake_features):
    """A number that asks something else of every element."""
    total = 0
    for real, fake in zip(features, fake_features, strict=True):
        ramp = torch.linspace(0, 1, fake[0].numel(), dtype=torch.float64, device=fake.device).view(fake.shape[1:])
        total = total + ((fake.double() - real.double()).square() * ramp).mean() - (fake.double() * ramp).mean()
    return total


def both(network, real, fake, run):
    """Features of either side and the gradient at the generated images."""
    fake = fake.detach().requires_grad_()
    features, fake_features = run(network, real, fake)
    (gradient,) = torch.autograd.grad(loss(features, fake_features), fake)
    return *features, *fake_features, gradient


@pytest.mark.parametrize("shape", [(2, 3, 32, 32), (1, 3, 17, 19), (3, 3, 33, 22)], ids=str)
@pytest.mark.parametrize("taps", [TAPS, ("relu3_1",), ("relu1_1", "relu4_1")], ids=lambda taps: "-".join(taps))
@pytest.mark.parametrize("aligned", [False, True])
def test_equals_two_calls(taps, shape, aligned):
    net, (real, fake) = network(taps, torch.float64, aligned=aligned), images(shape, torch.float64)
    pair = both(net, real, fake, LossNetwork.forward_pair)
    plain = both(network(taps, torch.float64), real, fake, two_calls)
    for ours, expected in zip(pair, plain, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-12, atol=1e-12 * expected.abs().max().item())


def test_takes_images_in_any_layout_and_weights_too():
    net, (real, fake) = LossNetwork(("relu1_1", "relu3_1")).double(), images((2, 3, 12, 12), torch.float64)
    expected = both(net, real, fake, two_calls)
    for layout in (torch.contiguous_format, torch.channels_last):
        laid = [x.contiguous(memory_format=layout) for x in (real, fake)]
        for ours, plain in zip(both(net, *laid, LossNetwork.forward_pair), expected, strict=True):
            torch.testing.assert_close(ours, plain, rtol=1e-12, atol=1e-12)


def test_only_the_generated_side_has_a_gradient_and_only_once():
    net, (real, fake) = network(("relu1_1", "relu2_1")), images((2, 3, 8, 8))
    real.requires_grad_(), fake.requires_grad_()
    features, fake_features = net.forward_pair(real, fake)
    assert not any(f.requires_grad for f in features) and all(f.requires_grad for f in fake_features)
    (gradient,) = torch.autograd.grad(loss(features, fake_features), fake, create_graph=True)
    with pytest.raises(RuntimeError, match="differentiate twice"):
        gradient.sum().backward()
    with torch.no_grad():
        assert not any(f.requires_grad for f in net.forward_pair(real, fake)[1])
    assert real.grad is None and all(p.grad is None for p in net.parameters())


@pytest.mark.parametrize("rounded", [False, True])
def test_under_autocast_equals_two_calls_under_autocast(rounded):
    net, (real, fake) = network(TAPS[:3]), images((2, 3, 16, 16))
    with torch.autocast("cpu", torch.bfloat16):
        expected = both(net, real, fake, two_calls)
        if rounded:
            net.round_weights_(torch.bfloat16)
        ours = both(net, real, fake, LossNetwork.forward_pair)
    assert ours[0].dtype == torch.bfloat16 and ours[-1].dtype == torch.float32
    for found, plain in zip(ours, expected, strict=True):
        assert (found.float() - plain.float()).norm() <= 0.01 * plain.float().norm()


def test_compiled_with_its_loss():
    net, (real, fake) = network(TAPS[:2]), images((2, 3, 9, 8))
    fake.requires_grad_()

    def step(real, fake):
        return loss(*net.forward_pair(real, fake))

    compiled = torch.compile(step, fullgraph=True, dynamic=False, backend="aot_eager")(real, fake)
    plain = loss(*two_calls(net, real, fake))
    torch.testing.assert_close(compiled, plain, rtol=1e-5, atol=1e-6)
    ours, expected = (torch.autograd.grad(total, fake)[0] for total in (compiled, plain))
    assert (ours - expected).norm() <= 1e-5 * expected.norm()


@pytest.mark.parametrize("aligned", [False, True])
def test_compiled_graphs_do_only_what_is_needed(aligned):
    """Convolutions of the whole batch forwards and of its generated half backwards, no weight gradients, no copies."""
    batch, net = 3, network(("relu1_1", "relu3_1"), aligned=aligned)
    real, fake = images((batch, 3, 16, 16))
    graphs = []

    def keep(graph, _):
        graphs.append(graph)
        return graph

    step = torch.compile(
        lambda real, fake: loss(*net.forward_pair(real, fake)),
        fullgraph=True,
        dynamic=False,
        backend=aot_autograd(fw_compiler=keep, bw_compiler=keep),
    )
    with force("aten", op="conv_relu"):
        step(real, fake.requires_grad_()).backward()
    forward, backward = ([n for n in graph.graph.nodes] for graph in graphs)
    convolutions = [n for n in forward if n.target == torch.ops.aten.convolution.default]
    gradients = [n for n in backward if n.target == torch.ops.aten.convolution_backward.default]
    assert len(convolutions) == len(gradients) == 5
    assert {n.meta["val"].shape[0] for n in convolutions} == {2 * batch}
    assert convolutions[0].args[0].meta["val"].shape[1] == (8 if aligned else 3)
    assert gradients[-1].meta["val"][0].shape[1] == (8 if aligned else 3)
    pads = [n.meta["val"] for n in (*forward, *backward) if "pad" in str(n.target)]
    # In memory order; of the images alone, not of the weight.
    assert [x.shape for x in pads] == [(batch, 16, 16, 8)] * (2 * aligned)
    assert {n.meta["val"][0].shape[0] for n in gradients} == {batch}
    assert all(n.args[-1] == [True, False, False] for n in gradients)
    results = [n.meta["val"] for n in convolutions] + [n.meta["val"][0] for n in gradients]
    assert all(x.is_contiguous(memory_format=torch.channels_last) for x in results)
    saved = [n.meta["val"] for n in backward if n.op == "placeholder"]
    assert not [x for x in saved if x.dtype in (torch.int64, torch.int8)]  # where the maxima were
    maps = [x for x in saved if x.ndim == 4 and x.shape[0] in (batch, 2 * batch) and x.dtype == torch.float32]
    assert maps and all(x.is_contiguous(memory_format=torch.channels_last) for x in maps)


@pytest.mark.skipif(host_compiler() is None, reason="needs a C++ compiler")
@pytest.mark.parametrize(
    ("precision", "weights"),
    [(torch.float32, torch.float32), (torch.bfloat16, torch.float32), (torch.bfloat16, torch.bfloat16)],
    ids=str,
)
@pytest.mark.parametrize("shape", [(2, 3, 32, 32), (1, 3, 17, 19)], ids=str)
def test_convolutions_in_cpp_agree_with_torchs(shape, precision, weights):
    """In float32 to 1e-5 of the largest value; in bfloat16 they are as close to float64 as torch's are."""
    net, (real, fake) = network().round_weights_(weights), images(shape)
    results = []
    for provider in ("native", "aten"):
        with force(provider, op="conv_relu"), torch.autocast("cpu", precision, enabled=precision == torch.bfloat16):
            results.append(both(net, real, fake, LossNetwork.forward_pair))
    exact_net = network(dtype=torch.float64)
    if precision == torch.bfloat16:
        exact_net.round_weights_(torch.bfloat16).round_weights_(torch.float64)
    exact = both(exact_net, *(x.double() for x in (real, fake)), LossNetwork.forward_pair)
    for ours, plain, true in zip(*results, exact, strict=True):
        assert ours.dtype == plain.dtype and ours.stride() == plain.stride()
        if precision == torch.float32:
            torch.testing.assert_close(ours, plain, rtol=0, atol=1e-5 * plain.abs().max().item())
        else:
            assert_close(ours, plain, true)


@pytest.mark.parametrize("backward", [max_pool2d_backward, _max_pool2d_backward_by_comparison])
@pytest.mark.parametrize("shape", [(2, 3, 8, 6), (1, 2, 5, 7), (2, 1, 2, 3)], ids=str)
def test_pooling_breaks_ties_as_torch_does(backward, shape):
    # Three values, so that most windows hold their maximum twice; zero is where the ReLU lets nothing through.
    x = torch.randint(-1, 3, shape, generator=torch.Generator().manual_seed(0)).double().relu().requires_grad_()
    y = F.max_pool2d(x, 2)
    grad = torch.randn(y.shape, dtype=torch.float64)
    grad[0, 0, 0, 0] = 0
    (expected,) = torch.autograd.grad(y, x, grad)
    found = backward(grad, x.detach(), y.detach())
    assert torch.equal(torch.where(x > 0, found, 0), torch.where(x > 0, expected, 0))


@pytest.mark.parametrize("backward", [max_pool2d_backward, _max_pool2d_backward_by_comparison])
def test_pooling_loses_no_nan(backward):
    x = torch.tensor([[1.0, 2.0, 3.0, 4.0], [float("nan"), 5.0, 6.0, 7.0]])[None, None]
    grad = torch.tensor([float("nan"), 2.0])[None, None, None]
    found = backward(grad, x, F.max_pool2d(x, 2))
    assert found[0, 0, :, :2].isnan().sum() == 1 and found[0, 0, 1, 0].isnan()
    assert found[0, 0, :, 2:].tolist() == [[0, 0], [0, 2]]


def test_pooling_by_comparison_masks_as_the_relu_does():
    x, y = torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 1, 1)
    assert torch.equal(_max_pool2d_backward_by_comparison(torch.ones(1, 1, 1, 1), x, y), x)


def test_sides_that_do_not_match_are_refused():
    with pytest.raises(ValueError, match=r"got \(2, 3, 8, 8\) and \(1, 3, 8, 8\)"):
        LossNetwork(("relu1_1",)).forward_pair(torch.zeros(2, 3, 8, 8), torch.zeros(1, 3, 8, 8))
    with pytest.raises(ValueError, match="at least 4 pixels"):
        LossNetwork(("relu3_1",)).forward_pair(torch.zeros(1, 3, 3, 8), torch.zeros(1, 3, 3, 8))


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("compiled", [False, True])
def test_on_the_gpu(dtype, compiled, without_tf32):
    if dtype == torch.bfloat16 and torch.cuda.get_device_capability() < (8, 0):
        pytest.skip("no bfloat16")
    net = network().cuda()
    exact = LossNetwork().double().cuda()
    exact.load_state_dict(net.state_dict())
    real, fake = (x.cuda() for x in images((4, 3, 64, 64)))

    def step(real, fake):
        return loss(*LossNetwork.forward_pair(net, real, fake))

    if compiled:
        step = torch.compile(step, fullgraph=True, dynamic=False)
    ours, plain, true = (x.requires_grad_() for x in (fake.clone(), fake.clone(), fake.double()))
    with torch.autocast("cuda", torch.bfloat16, enabled=dtype == torch.bfloat16):
        ours_loss, plain_loss = step(real, ours), loss(*two_calls(net, real, plain))
    for total in (ours_loss, plain_loss, loss(*two_calls(exact, real.double(), true))):
        total.backward()
    errors = [((x.grad.double() - true.grad).norm() / true.grad.norm()).item() for x in (ours, plain)]
    assert errors[0] <= 2 * errors[1] + 1e-6
