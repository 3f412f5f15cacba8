"""`batch_norm` with residual and LeakyReLU against torch's own three modules, eager and compiled.

python -m bench kernels --op batch_norm
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from bench.kernels.cases import NormCase
from bench.kernels.comparison import OURS, OURS_COMPILED, Measurement
from fastvae.kernels import batch_norm, batch_norm_ref
from fastvae.kernels.batch_norm import cost
from fastvae.models.blocks import NEGATIVE_SLOPE


def measurements(cases: tuple[NormCase, ...], dtype: torch.dtype, device: str) -> Iterator[Measurement]:
    """Forward and backward for every case: alone, neither direction is what a training step needs."""
    for case in cases:
        yield _measurement(case, dtype, device)


def _measurement(case: NormCase, dtype: torch.dtype, device: str) -> Measurement:
    operands = case.operands(dtype, device)
    running = [torch.zeros(case.channels, device=device), torch.ones(case.channels, device=device)]
    direction = torch.randn_like(operands[0])

    def call(function: Callable[..., Tensor], operands=operands, running=running):
        x, weight, bias, residual = operands
        options = {"batches": case.batches, "residual": residual, "negative_slope": NEGATIVE_SLOPE}
        y = function(x, weight, bias, *running, **options)
        return [y, *torch.autograd.grad(y, [t for t in operands if t is not None], direction.to(y.dtype))]

    plain_compiled, ours_compiled = (
        torch.compile(f, fullgraph=True, dynamic=False, options={"max_autotune": device == "cuda"})
        for f in (batch_norm_ref, batch_norm)
    )
    contenders = {
        "torch": lambda: call(batch_norm_ref),
        "torch, compiled": lambda: call(plain_compiled),
        OURS: lambda: call(batch_norm),
        OURS_COMPILED: lambda: call(ours_compiled),
    }

    def expected():
        wide = [None if t is None else t.detach().double().requires_grad_() for t in operands]
        return call(batch_norm_ref), call(batch_norm_ref, wide, [t.double() for t in running])

    least = cost(operands[0].numel(), case.channels, dtype, residual=case.residual)
    work = "forward and backward"
    return Measurement("batch_norm", case.name, work, dtype, contenders, expected, least.flops, least.bytes)
