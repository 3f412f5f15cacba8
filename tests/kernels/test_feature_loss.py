"""`feature_loss` in ATen against equations 5 and 6: values, gradients, layouts, compiled."""

import pytest
import torch
import torch.nn.functional as F
from torch._dynamo.backends.common import aot_autograd
from torch.library import opcheck

from bench.measuring.closeness import assert_close
from fastvae.kernels import feature_loss, feature_loss_ref
from fastvae.kernels.dispatch import SOURCES
from fastvae.kernels.feature_loss import _forward, cost, paper_weights

SHAPES = [(3, 4, 6, 6), (3, 8, 3, 3), (3, 5, 1, 2)]
WEIGHTS = (1.0, 2.0, 3.0)


def maps(dtype=torch.float64, seed=0, layout="contiguous"):
    generator = torch.Generator().manual_seed(seed)
    made = [torch.randn(s, generator=generator, dtype=torch.float64).to(dtype) for s in SHAPES]
    if layout == "channels_last":
        return [x.contiguous(memory_format=torch.channels_last) for x in made]
    if layout == "strided":  # every second element of a larger tensor
        return [x.repeat_interleave(2, dim=-1)[..., ::2] for x in made]
    return made


def leaves(tensors):
    return [x.detach().requires_grad_() for x in tensors]


def plain(features, targets, weights):
    """As plain torch computes it in the features' own dtype, with sums in float32."""
    return sum(
        0.5 * weight * F.mse_loss(f.float(), t.float()) for f, t, weight in zip(features, targets, weights, strict=True)
    )


def test_by_hand():
    # One layer of two channels and 1x1: eq. 5 gives (3^2 + 4^2) / (2 * 2) = 6.25, eq. 6 weighs it by 100 / 4. The
    # gradient is 100 / 4 (x - y) / 2; a ReLU that gave x let no gradient through to the first channel.
    x, y = torch.tensor([[[[0.0]], [[2.0]]]]).requires_grad_(), torch.tensor([[[[3.0]], [[-2.0]]]])
    loss = feature_loss([x], [y], paper_weights([2]))
    assert loss.item() == pytest.approx(156.25)
    assert torch.autograd.grad(loss, x)[0].flatten().tolist() == [-37.5, 50.0]
    through = feature_loss([x], [y], paper_weights([2]), through_relu=True)
    assert torch.autograd.grad(through, x)[0].flatten().tolist() == [0.0, 50.0]


@pytest.mark.parametrize("target_layout", ["contiguous", "channels_last", "strided"])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "strided"])
def test_equals_reference_in_any_layout(layout, target_layout):
    features, targets = leaves(maps(layout=layout)), maps(seed=1, layout=target_layout)
    ours, expected = (f(features, targets, WEIGHTS) for f in (feature_loss, feature_loss_ref))
    assert torch.allclose(ours, expected, rtol=1e-13)
    gradients = torch.autograd.grad(ours, features)
    for got, true in zip(gradients, torch.autograd.grad(expected, features), strict=True):
        assert torch.allclose(got, true, rtol=1e-13)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_is_as_exact_as_plain_torch(dtype):
    features, targets = leaves(maps(dtype)), maps(dtype, seed=1)
    wide = leaves([f.double() for f in features])
    exact = feature_loss_ref(wide, targets, WEIGHTS)
    ours, expected = (f(features, targets, WEIGHTS) for f in (feature_loss, plain))
    assert_close(ours.detach(), expected.detach(), exact.detach())
    gradients = (torch.autograd.grad(a, b) for a, b in ((ours, features), (expected, features), (exact, wide)))
    for got, same, true in zip(*gradients, strict=True):
        assert_close(got, same, true)


def test_gradcheck_and_constant_targets():
    features, targets = leaves(maps()), leaves(maps(seed=1))
    assert torch.autograd.gradcheck(lambda *f: feature_loss(f, targets, WEIGHTS), features)
    assert torch.autograd.gradgradcheck(lambda *f: feature_loss(f, targets, WEIGHTS, through_relu=True), features)
    feature_loss(features, targets, WEIGHTS).backward()
    assert all(t.grad is None for t in targets)
    assert not feature_loss(maps(), targets, WEIGHTS).requires_grad


def test_through_relu_is_the_gradient_at_its_input():
    before, targets = leaves(maps()), maps(seed=1)
    expected = torch.autograd.grad(feature_loss_ref([x.relu() for x in before], targets, WEIGHTS), before)
    after = leaves([x.relu() for x in before])
    folded = torch.autograd.grad(feature_loss(after, targets, WEIGHTS, through_relu=True), after)
    # Before the ReLU's own backward it changes nothing.
    twice = torch.autograd.grad(feature_loss([x.relu() for x in before], targets, WEIGHTS, through_relu=True), before)
    for true, *got in zip(expected, folded, twice, strict=True):
        assert all(torch.allclose(g, true, rtol=1e-13) for g in got)


def test_half_precision_features_accumulate_in_float32():
    big = [torch.full((1, 64, 64, 64), 256.0, dtype=torch.bfloat16)]
    none = [torch.zeros_like(big[0])]
    loss = feature_loss(big, none, (1.0,))
    assert loss.dtype == torch.float32
    assert loss.item() == 256**2 / 2


def test_float16_gradients_wait_for_the_loss_scale():
    # Before the scale of 2^20 each is 1e-6 / 1024 times 1, which float16 rounds to zero.
    x = torch.ones(1, 4, 16, 16, dtype=torch.float16, requires_grad=True)
    (feature_loss([x], [torch.zeros_like(x)], (1e-6,)) * 2.0**20).backward()
    assert torch.allclose(x.grad, torch.full_like(x, 1e-6 * 2**10), rtol=2e-3)


def test_saves_only_what_is_there_anyway():
    features, targets = leaves(maps()), maps(seed=1)
    there, saved = {x.data_ptr() for x in (*features, *targets)}, []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: saved.append(x) or x, lambda x: x):
        feature_loss(features, targets, WEIGHTS)
    assert len(saved) == 2 * len(SHAPES) and {x.data_ptr() for x in saved} == there


def test_a_gradient_only_where_one_is_wanted_and_as_often_as_it_is():
    features = maps()
    features[1].requires_grad_()
    loss = feature_loss(features, maps(seed=1), WEIGHTS)
    first, second = (torch.autograd.grad(loss, features[1], retain_graph=again)[0] for again in (True, False))
    assert torch.equal(first, second)
    sum(feature_loss(features, maps(seed=1), WEIGHTS) for _ in range(2)).backward()
    assert torch.equal(features[1].grad, 2 * first)
    assert [f.grad is not None for f in features] == [False, True, False]


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_registered_as_torch_wants_it(dtype, layout):
    features, targets = leaves(maps(dtype, layout=layout)[:2]), maps(dtype, 1, layout)[:2]
    opcheck(_forward, (features, targets, [1.0, 2.0], layout == "contiguous", SOURCES))


def test_compiled_in_one_graph():
    def step(features, targets):
        return feature_loss([f.relu() for f in features], targets, WEIGHTS, through_relu=True) * 0.5

    features, targets = leaves(maps(torch.float32, layout="channels_last")), maps(torch.float32, seed=1)
    results = [f(features, targets) for f in (torch.compile(step, fullgraph=True), step)]
    assert torch.allclose(*results)
    for ours, eager in zip(*(torch.autograd.grad(r, features) for r in results), strict=True):
        assert torch.allclose(ours, eager)


@pytest.mark.parametrize("through_relu", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_compiled_it_saves_no_differences(dtype, through_relu):
    """As in training: both sides are halves of one map, of which the network before keeps the one."""
    graphs = []

    def keep(graph, _):
        graphs.append(graph)
        return graph

    def step(x):
        both = torch.cat([x.detach() * 0.5, x]).relu()
        targets, features = both.split(len(x))
        deeper = features.sin() * 1e-3
        return feature_loss([features, deeper], [targets, deeper.detach() + 1], (1.0, 2.0), through_relu=through_relu)

    x = maps(dtype)[0].requires_grad_()
    torch.compile(step, fullgraph=True, backend=aot_autograd(fw_compiler=keep, bw_compiler=keep))(x).backward()
    forward, backward = graphs
    saved = [node for node in next(iter(reversed(forward.graph.nodes))).args[0] if isinstance(node, torch.fx.Node)][1:]
    assert saved and not [node for node in saved if "sub" in node.name], saved
    assert {node.meta["val"].dtype for node in saved if node.meta["val"].dim() == 4} == {dtype}
    assert len([node for node in backward.graph.nodes if node.target == torch.ops.aten.sub.Tensor]) == 2


def test_targets_may_come_from_inference_mode():
    feature = maps(torch.float32)[0].requires_grad_()
    with torch.inference_mode():
        target = maps(torch.float32, 1)[0] * 1
        feature_loss([feature], [target], (1.0,))
    (found,) = torch.autograd.grad(feature_loss([feature], [target], (1.0,)), feature)
    (expected,) = torch.autograd.grad(feature_loss([feature], [target.clone()], (1.0,)), feature)
    assert torch.equal(found, expected)


def test_an_empty_batch_gives_nan_as_torch_does():
    x = torch.empty(0, 3, 4, 4, requires_grad=True)
    loss = feature_loss([x], [x.detach()], (1.0,))
    loss.backward()
    assert loss.isnan() and F.mse_loss(x, x).isnan()
    assert x.grad.shape == x.shape


X = torch.zeros(1, 2, 3, 3)


@pytest.mark.parametrize(
    ("features", "targets", "weights", "words"),
    [
        ([X] * 3, [X] * 3, (1.0, 1.0), "got 3, 3 and 2"),
        ([], [], (), "got 0, 0 and 0"),
        ([X, X], [X, X[:, :1]], (1, 1), r"equal shapes; got \[1, 2, 3, 3\] and \[1, 1, 3, 3\] for layer 1"),
        ([X.int()], [X.int()], (1,), "floating point; got torch.int32"),
        ([X], [X.double()], (1,), "float32 as layer 0 has; got features in torch.float32 and targets in torch.float64"),
        ([X, X.half()], [X, X.half()], (1, 1), "float32 as layer 0 has; got features in torch.float16 .* for layer 1"),
        ([X], [X.to("meta")], (1,), "one device, cpu as layer 0 has; got features on cpu and targets on meta"),
        ([X], [X], (torch.ones(()),), "Python numbers; got a tensor for layer 0"),
    ],
)
def test_refuses(features, targets, weights, words):
    with pytest.raises(ValueError, match=words):
        feature_loss(features, targets, weights)


def test_cost_reads_and_writes_each_once():
    shapes, elements = [(2, 3, 4, 4), (2, 5, 2, 2)], 2 * 3 * 16 + 2 * 5 * 4
    forward = cost(shapes, torch.bfloat16, with_gradients=False)
    assert (forward.flops, forward.bytes) == (3 * elements, 2 * 2 * elements)
    both = cost(shapes, torch.float32, with_gradients=True)
    assert (both.flops, both.bytes) == (4 * elements, 3 * 4 * elements)
