"""What other programs take: exported, traced, scripted and transformed, all is in torch's own operations."""

import copy
import io
import logging
import pickle
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call, grad, hessian, jvp, vmap

from fastvae.kernels import conv_relu, feature_loss, replicate_conv2d, replicate_conv2d_with_sums, reverse_gradient
from fastvae.lossnet import LossNetwork
from fastvae.models import VAE
from fastvae.nn import ReplicationConv2d, swap_


class Ops(nn.Module):
    """Every operation that a network may be built from."""

    def __init__(self):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(4, 3, 3, 3)), nn.Parameter(torch.randn(4))

    def forward(self, x):
        return (
            replicate_conv2d(x, self.weight, self.bias, upsample=2, negative_slope=0.2),
            *replicate_conv2d_with_sums(x, self.weight, None),
            conv_relu(x, self.weight, self.bias, padding=1),
            feature_loss([x, x[:, 1:]], [x * 2, x[:, :2]], (1.0, 0.5), through_relu=True),
            reverse_gradient(x),
        )


class Pair(nn.Module):
    def __init__(self):
        super().__init__()
        self.network = LossNetwork(("relu1_1", "relu2_1"))

    def forward(self, x):
        features, fake_features = self.network.forward_pair(x * 0.5, x)
        return feature_loss(fake_features, features, (1.0, 2.0))


def stock() -> nn.Sequential:
    torch.manual_seed(0)
    replicated = {"padding": 1, "padding_mode": "replicate"}
    return nn.Sequential(
        nn.Upsample(scale_factor=2),
        nn.Conv2d(3, 4, 3, **replicated),
        nn.BatchNorm2d(4),
        nn.Conv2d(4, 2, 3, **replicated),
    ).eval()


def swapped() -> nn.Module:
    model = stock()
    assert len(swap_(model).swapped) == 2
    return model


MODELS = {
    "module": lambda: ReplicationConv2d(3, 4, bias=False),
    "swapped": swapped,
    "swapped in training": lambda: swapped().train(),
    "operations": Ops,
    "decoder stage": lambda: nn.Sequential(nn.Conv2d(3, 4, 1), VAE(16, 2, 3).decoder.stages[0]).eval(),
    "loss network pair": Pair,
}


def results(y) -> list[torch.Tensor]:
    return list(y) if isinstance(y, tuple) else [y]


def assert_same(found, expected):
    for a, b in zip(results(found), results(expected), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5 * b.abs().max().item())


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS.keys())
def test_an_exported_program_has_no_operation_of_ours(model, strict):
    torch.manual_seed(0)
    model, x, other = model(), torch.randn(2, 3, 8, 6), torch.randn(5, 3, 4, 10)
    sizes = {axis: torch.export.Dim(name, min=2, max=64) for axis, name in ((0, "batch"), (2, "h"), (3, "w"))}
    # The loss network halves the maps, which leaves not every size.
    dynamic = None if isinstance(model, Pair) else ({0: sizes[0], 2: sizes[2], 3: sizes[3]},)
    program = torch.export.export(model, (x,), dynamic_shapes=dynamic, strict=strict)
    forms = [program]
    if not strict:  # what follows does not depend on who traced
        kept = io.BytesIO()
        torch.export.save(program, kept)
        kept.seek(0)
        forms += [program.run_decompositions({}), program.run_decompositions(), torch.export.load(kept)]
    given = x if dynamic is None else other
    expected = copy.deepcopy(model)(given)
    for form in forms:
        assert "fastvae" not in str(form.graph)
        assert_same(copy.deepcopy(form).module()(given), expected)


def test_an_exported_module_is_that_of_torch_s_own_layer():
    x = torch.randn(2, 3, 8, 6)
    ours, torchs = (
        [str(node.target) for node in torch.export.export(model, (x,)).graph.nodes if node.op == "call_function"]
        for model in (swapped(), stock())
    )
    assert ours == torchs


def onnx_results(path, x):
    onnx, onnxruntime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    model = onnx.load(path)
    assert {entry.domain for entry in model.opset_import} == {""} and not model.functions
    assert {node.domain for node in model.graph.node} == {""}
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return [torch.from_numpy(y) for y in session.run(None, {session.get_inputs()[0].name: x.numpy()})]


@pytest.mark.parametrize("dynamo", [True, False], ids=["dynamo", "torchscript"])
@pytest.mark.parametrize("model", [swapped, Ops], ids=["swapped", "operations"])
def test_onnx_by_standard_operators(model, dynamo, tmp_path):
    pytest.importorskip("onnxscript")
    torch.manual_seed(0)
    model, x = model(), torch.randn(2, 3, 8, 6)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(model, (x,), str(tmp_path / "a.onnx"), dynamo=dynamo, verbose=False)
    for found, expected in zip(onnx_results(tmp_path / "a.onnx", x), results(model(x)), strict=True):
        torch.testing.assert_close(found, expected.detach(), rtol=1e-4, atol=1e-5 * expected.abs().max().item())


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
@pytest.mark.filterwarnings("error::torch.jit.TracerWarning")
def test_traced_and_scripted():
    model, x = swapped(), torch.randn(2, 3, 8, 6)
    for made in (torch.jit.trace(model, (x,)), torch.jit.script(model)):
        kept = io.BytesIO()
        torch.jit.save(made, kept)
        kept.seek(0)
        assert "fastvae::" not in str(made.inlined_graph)
        assert_same(torch.jit.load(kept)(x), model(x))


@pytest.mark.parametrize("upsample", [1, 2])
def test_torch_func(upsample):
    """Gradients, tangents, second derivatives and batches of weights: those of torch's own operations."""
    conv, x = ReplicationConv2d(2, 3, upsample=upsample).double(), torch.randn(2, 2, 4, 3, dtype=torch.float64)
    weights = {name: p.detach() for name, p in conv.named_parameters()}

    def plain(weights, x):
        if upsample == 2:
            x = F.interpolate(x, scale_factor=2.0)
        return F.conv2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), weights["weight"], weights["bias"])

    def ours(weights, x):
        return functional_call(conv, weights, (x,))

    both = [(lambda *t, f=f: f(*t).square().sum()) for f in (ours, plain)]
    for transform in (
        lambda f: grad(f)(weights, x),
        lambda f: hessian(lambda b: f({**weights, "bias": b}, x))(weights["bias"]),
    ):
        found, expected = (transform(f) for f in both)
        torch.testing.assert_close(found, expected)
    assert_same(jvp(lambda x: ours(weights, x), (x,), (x * 3,)), jvp(lambda x: plain(weights, x), (x,), (x * 3,)))
    several = {name: torch.stack([w, 2 * w]) for name, w in weights.items()}
    assert_same(vmap(ours, (0, None))(several, x), torch.stack([plain(weights, x), 2 * plain(weights, x)]))


def test_torch_func_through_the_losses():
    x, y = torch.rand(2, 3, 4, 4, dtype=torch.float64) - 0.5, torch.rand(2, 3, 4, 4, dtype=torch.float64)
    w, b = torch.randn(4, 3, 3, 3, dtype=torch.float64), torch.randn(4, dtype=torch.float64)
    for f in (
        lambda x: feature_loss([x, 2 * x], [y, y], (1.0, 3.0), through_relu=True),
        lambda x: conv_relu(x, w, b).square().sum(),
        lambda x: sum(t.square().sum() for t in replicate_conv2d_with_sums(x, w, b)),
    ):
        leaf = x.clone().requires_grad_()
        torch.testing.assert_close(grad(f)(x), torch.autograd.grad(f(leaf), leaf)[0])


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=["deepcopy", "pickle"])
@pytest.mark.parametrize("model", [swapped, lambda: VAE(16, 2, 3).eval(), Pair], ids=["swapped", "vae", "pair"])
def test_copies(model, copied):
    model = model()
    x = torch.rand(2, 3, 16, 16)
    twin = copied(model)
    assert_same(twin(x), model(x))
    assert not {p.data_ptr() for p in model.parameters()} & {p.data_ptr() for p in twin.parameters()}
