"""Who runs an op, Triton kernels or torch's own (ATen), and how a kernel is started.

Triton needs a GPU of compute capability 7.0 or later and one of the dtypes below; bfloat16 needs 8.0, since older
processors emulate it number by number. Everything else runs the same mathematics in ATen: CPUs, older GPUs, float64.

Every kernel is started through `launch`, so that tests can run it in Triton's interpreter on a CPU and tools can
compile it for processors that are not there.
"""

import difflib
import importlib.util
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Literal

import torch
from torch import Tensor

Provider = Literal["triton", "aten"]

OLDEST = (7, 0)
OLDEST_BF16 = (8, 0)

_FLOATS = (torch.float32, torch.bfloat16, torch.float16)
# The dtypes that each op's kernels take.
_DTYPES = {
    "replicate_conv2d": _FLOATS,
    "feature_loss": _FLOATS,
    "adam_clip_": (torch.float32,),
    "rmsprop_clip_": (torch.float32,),
}


@dataclass(frozen=True)
class _Forced:
    provider: Provider | None = None
    capability: tuple[int, int] | None = None
    launch: Callable | None = None


_forced = _Forced()


def provider(op: str, x: Tensor) -> Provider:
    """Which implementation runs `op` on a tensor like x.

    Args:
        op: "replicate_conv2d", "feature_loss", "adam_clip_" or "rmsprop_clip_".
        x: the op's input: the image, a feature map, a parameter. Only its device and dtype matter.

    Returns:
        "triton" or "aten".

    Raises:
        ValueError: there is no such op.
    """
    if op not in _DTYPES:
        near = difflib.get_close_matches(op, _DTYPES, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"expected one of {', '.join(_DTYPES)}; got {op!r}{hint}")
    if _forced.provider is not None:
        return _forced.provider
    if x.device.type != "cuda" or x.dtype not in _DTYPES[op] or importlib.util.find_spec("triton") is None:
        return "aten"
    oldest = OLDEST_BF16 if x.dtype == torch.bfloat16 else OLDEST
    return "triton" if capability(x) >= oldest else "aten"


def capability(x: Tensor) -> tuple[int, int]:
    """Compute capability of the GPU that x is on, which decides the kernels' tiles."""
    return _forced.capability or _capability_of(x.device.index or 0)


@cache
def _capability_of(index: int) -> tuple[int, int]:
    return torch.cuda.get_device_capability(index)


def launch(kernel, grid: tuple[int, ...], *args, **options) -> None:
    """kernel[grid](*args, **options); nothing for an empty grid, which CUDA would refuse."""
    if 0 in grid:
        return
    if _forced.launch is not None:
        _forced.launch(kernel, grid, args, options)
    else:
        torch.library.wrap_triton(kernel)[grid](*args, **options)


@contextmanager
def force(
    provider: Provider, *, capability: tuple[int, int] | None = None, launch: Callable | None = None
) -> Iterator[None]:
    """Within the block every op runs this way, wherever its tensors are.

    Args:
        provider: "aten" to compare with torch's own; "triton" raises from Triton on a machine that cannot.
        capability: pretend this compute capability when tiles are chosen.
        launch: called with (kernel, grid, args, options) in place of each launch.
    """
    global _forced
    before, _forced = _forced, _Forced(provider, capability, launch)
    try:
        yield
    finally:
        _forced = before
