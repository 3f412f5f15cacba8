"""`feature_loss` against a loop of F.mse_loss over the layers, eager and compiled.

python -m bench kernels --op feature_loss
"""

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.kernels.cases import FeatureCase
from bench.kernels.comparison import OURS, OURS_COMPILED, Measurement
from fastvae.kernels import feature_loss, feature_loss_ref
from fastvae.kernels.feature_loss import cost


def loop(features: list[Tensor], targets: list[Tensor], weights: tuple[float, ...]) -> Tensor:
    """Equations 5 and 6 as one writes them in torch, in float32."""
    losses = [0.5 * w * F.mse_loss(f.float(), t.float()) for f, t, w in zip(features, targets, weights, strict=True)]
    return torch.stack(losses).sum()


def measurements(cases: tuple[FeatureCase, ...], dtype: torch.dtype, device: str) -> Iterator[Measurement]:
    """The loss alone, and with its gradients, for every case."""
    for case in cases:
        yield _measurement(case, dtype, device, backward=False)
        yield _measurement(case, dtype, device, backward=True)


def _measurement(case: FeatureCase, dtype: torch.dtype, device: str, *, backward: bool) -> Measurement:
    features, targets = case.operands(dtype, device)
    for feature in features:
        feature.requires_grad_(backward)

    def call(function: Callable[..., Tensor], features=features, targets=targets):
        loss = function(features, targets, case.weights)
        return [loss, *torch.autograd.grad(loss, features)] if backward else loss

    loop_compiled, ours_compiled = (
        torch.compile(f, fullgraph=True, dynamic=False, options={"max_autotune": device == "cuda"})
        for f in (loop, feature_loss)
    )
    contenders = {
        "loop": lambda: call(loop),
        "loop, compiled": lambda: call(loop_compiled),
        OURS: lambda: call(feature_loss),
        OURS_COMPILED: lambda: call(ours_compiled),
    }

    def expected():
        wide = [f.detach().double().requires_grad_(backward) for f in features]
        return call(loop), call(feature_loss_ref, wide, [t.double() for t in targets])

    least = cost([f.shape for f in features], dtype, backward)
    work = "loss and gradients" if backward else "loss"
    return Measurement("feature_loss", case.name, work, dtype, contenders, expected, least.flops, least.bytes)
