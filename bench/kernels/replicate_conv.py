"""`replicate_conv2d` against the padded composition: F.interpolate, F.pad and cuDNN (oneDNN), eager and compiled.

    python -m bench kernels --op replicate_conv2d

The peers run in channels_last with cuDNN's search on, compiled ones with max_autotune (without the coordinate descent
of `mode="max-autotune"`, which took most of the time that such a run has). On the CPU the compiled peer
pads by torch.cat, because Inductor's backward of F.pad(mode="replicate") is wrong there (torch 2.11 to 2.13).
"""

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.kernels.cases import ConvCase
from bench.kernels.comparison import OURS, OURS_COMPILED, OURS_IN_ATEN, Measurement
from fastvae.kernels import dispatch, replicate_conv2d, replicate_conv2d_ref
from fastvae.kernels.replicate_conv import cost

Call = Callable[[Tensor, Tensor, Tensor | None], Tensor]


def padded(x: Tensor, weight: Tensor, bias: Tensor | None, upsample: int) -> Tensor:
    """As torch's own modules do it."""
    x = x if upsample == 1 else F.interpolate(x, scale_factor=2, mode="nearest")
    return F.conv2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), weight, bias)


def padded_by_cat(x: Tensor, weight: Tensor, bias: Tensor | None, upsample: int) -> Tensor:
    """The same with a padding that compiles correctly on the CPU."""
    x = x if upsample == 1 else F.interpolate(x, scale_factor=2, mode="nearest")
    x = torch.cat((x[..., :1], x, x[..., -1:]), -1)
    return F.conv2d(torch.cat((x[..., :1, :], x, x[..., -1:, :]), -2), weight, bias)


def measurements(cases: tuple[ConvCase, ...], dtype: torch.dtype, device: str) -> Iterator[Measurement]:
    """Forward alone, and forward with both gradients, for every case."""
    torch.backends.cudnn.benchmark = True
    for case in cases:
        yield _measurement(case, dtype, device, backward=False)
        yield _measurement(case, dtype, device, backward=True)


def _measurement(case: ConvCase, dtype: torch.dtype, device: str, *, backward: bool) -> Measurement:
    up = case.upsample
    # All in one dtype, which spares the peers the casting of weights.
    x, weight, bias = (None if t is None else t.detach().to(dtype) for t in case.operands(dtype, device))
    inputs = [t.requires_grad_(backward) for t in (x, weight, bias) if t is not None]
    side = up * case.size
    grad = torch.randn(case.batch, case.out_channels, side, side, device=device, dtype=dtype)
    grad = grad.contiguous(memory_format=torch.channels_last)

    def ours(x, weight, bias):
        return replicate_conv2d(x, weight, bias, upsample=up)

    def theirs(x, weight, bias):
        return padded(x, weight, bias, up)

    def theirs_to_compile(x, weight, bias):
        return padded(x, weight, bias, up) if device == "cuda" else padded_by_cat(x, weight, bias, up)

    def call(function: Call, operands=(x, weight, bias), wanted=inputs, g=grad):
        y = function(*operands)
        return [y, *torch.autograd.grad(y, wanted, g)] if backward else y

    def compiled(function: Call) -> Call:
        return torch.compile(function, fullgraph=True, dynamic=False, options={"max_autotune": device == "cuda"})

    ours_compiled, theirs_compiled = compiled(ours), compiled(theirs_to_compile)
    contenders = {
        "padded": lambda: call(theirs),
        "padded, compiled": lambda: call(theirs_compiled),
        OURS: lambda: call(ours),
        OURS_COMPILED: lambda: call(ours_compiled),
    }
    if device == "cuda":

        def in_aten():
            with dispatch.force("aten"):
                return call(ours)

        contenders[OURS_IN_ATEN] = in_aten

    def expected():
        wide = [None if t is None else t.detach().double().requires_grad_(backward) for t in (x, weight, bias)]
        wanted = [t for t in wide if t is not None]
        exact = call(lambda *t: replicate_conv2d_ref(*t, upsample=up), wide, wanted, grad.double())
        return call(theirs), exact

    shape = (case.batch, case.in_channels, case.out_channels, case.size, case.size)
    directions = ("forward", "data_gradient", "weight_gradient") if backward else ("forward",)
    parts = [cost(*shape, upsample=up, dtype=dtype, direction=d) for d in directions]
    return Measurement(
        op="replicate_conv2d",
        case=case.name,
        work="forward and backward" if backward else "forward",
        dtype=dtype,
        contenders=contenders,
        expected=expected,
        flops=sum(p.flops for p in parts),
        bytes=sum(p.bytes for p in parts),
    )
