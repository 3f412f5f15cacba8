"""Which implementation runs an op (Triton kernels, a fused cuDNN kernel, C++, or ATen), and how kernels are launched.

Triton needs a GPU of the compute capability below. bfloat16 needs 8.0, since older GPUs emulate it element by element.
Half-precision convolutions need 8.0 too: on 7.5 Triton (3.7) does not use the tensor cores, but cuDNN does. On CPUs
`conv_relu`, `zero_padded_conv2d` and, in training, `replicate_conv2d` have a form in C++, which the machine's compiler
compiles. Everything else computes the same in ATen: the other ops on CPUs, older GPUs, float64.

All kernels are launched through `launch`, so that tests can run them in Triton's interpreter on a CPU, and tools can
compile them for GPUs that are not present.
"""

import difflib
import hashlib
import importlib.util
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from . import tiles, winograd

Provider = Literal["triton", "cudnn", "native", "aten"]

# The lowest compute capability for which each op has kernels, by dtype.
OLDEST = {
    "replicate_conv2d": {torch.float32: (7, 0), torch.float16: (8, 0), torch.bfloat16: (8, 0)},
    "feature_loss": {torch.float32: (7, 0), torch.float16: (7, 0), torch.bfloat16: (8, 0)},
    "adam_clip_": {torch.float32: (7, 0)},
    "rmsprop_clip_": {torch.float32: (7, 0)},
    "conv_relu": {torch.float32: (7, 0), torch.float16: (7, 0), torch.bfloat16: (8, 0)},
    "batch_norm": {torch.float32: (7, 0), torch.float16: (7, 0), torch.bfloat16: (8, 0)},
    "zero_padded_conv2d": {},
}
# Ops with a form in C++ for CPUs, by the dtypes that it takes.
_NATIVE = {"conv_relu": (torch.float32, torch.bfloat16), "zero_padded_conv2d": (torch.float32,)}
# Ops that try cuDNN's kernels first.
_BY_CUDNN = ("conv_relu",)
_NEVER = (99, 0)


def _hash_of_sources() -> str:
    folder = Path(__file__).parent
    digest = hashlib.sha256()
    for path in [*sorted(folder.glob("*.py")), tiles.PATH]:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


# An argument of every op that the compiler traces into: its disk cache identifies such an op by name and arguments, and
# would otherwise reuse the kernels and tiles of an earlier version.
SOURCES = _hash_of_sources()


def is_taken_apart() -> bool:
    """Whether the call must consist of torch's operations, like the reference, instead of an op of this package.

    True during export for programs without fastvae (torch.export, ONNX, torch.jit.trace), and under torch.func's
    transforms, which do not support ops with a registered backward.
    """
    # The flag behind torch.compiler.is_exporting, which torch.compile of torch 2.11 takes for always true: then no
    # compiled step would run a kernel of this package.
    if torch.compiler._is_exporting_flag or torch.jit.is_tracing():
        return True
    return not torch.compiler.is_compiling() and torch._C._are_functorch_transforms_active()


def is_plain_call(op: str, x: Tensor, *others: Tensor | None) -> bool:
    """Whether `op` may simply call ATen's operations: they run it, nothing looks on, and no gradient is wanted.

    The first call of a registered operation imports torch's compiler, which takes longer than torch itself; without
    one a model that was loaded samples at once. Compilers, modes such as one that counts FLOPs, and tensors of other
    classes see the operation all the same.
    """
    if torch.compiler.is_compiling() or torch._C._len_torch_dispatch_stack() or provider(op, x) != "aten":
        return False
    given = [x, *(t for t in others if t is not None)]
    if any(type(t) not in (Tensor, torch.nn.Parameter) for t in given):
        return False
    return not (torch.is_grad_enabled() and any(t.requires_grad for t in given))


@dataclass(frozen=True)
class _Forced:
    provider: Provider | None = None
    op: str | None = None
    capability: tuple[int, int] | None = None
    launch: Callable | None = None


_forced = _Forced()


def provider(op: str, x: Tensor, dtype: torch.dtype | None = None) -> Provider:
    """The implementation that runs `op` on a tensor like x.

    Args:
        op: "replicate_conv2d", "feature_loss", "conv_relu", "zero_padded_conv2d", "batch_norm", "adam_clip_" or
            "rmsprop_clip_".
        x: the op's input: the image, a feature map, a parameter. Only its device and dtype matter.
        dtype: in place of x's.

    Returns:
        "triton", "cudnn", "native" or "aten". "native", the C++ form of convolutions, leaves calls that it does
        not support to ATen; see `conv_relu_native.fits` and `zero_padded_conv.fits`. The "aten" of `replicate_conv2d`
        leaves some calls on CPUs to C++; see `replicate_conv_native.runs`.

    Raises:
        ValueError: there is no such op.
    """
    if op not in OLDEST:
        near = difflib.get_close_matches(op, OLDEST, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"expected one of {', '.join(OLDEST)}; got {op!r}{hint}")
    return forced(op) or provider_on(op, x.device, dtype or x.dtype)


def forced(op: str) -> Provider | None:
    """The provider that `force` demands of this op."""
    return _forced.provider if _forced.op in (None, op) else None


def _constant_when_compiled(function: Callable) -> Callable:
    """`torch.compiler.assume_constant_result`, without importing the compiler, which takes longer than torch itself."""
    function._dynamo_marked_constant = True
    return function


@_constant_when_compiled  # or the compiler would trace the query of the GPU's properties
def provider_on(op: str, device: torch.device, dtype: torch.dtype) -> Provider:
    """`provider` without a tensor, and ignoring `force`."""
    if device.type == "cpu":
        return "native" if dtype in _NATIVE.get(op, ()) and winograd.is_available() else "aten"
    if device.type != "cuda" or not supports(op, dtype, _capability_of(device.index or 0)):
        return "aten"
    if op in _BY_CUDNN:
        return "cudnn" if torch.backends.cudnn.enabled else "aten"
    return "triton" if has_triton() else "aten"


def supports(op: str, dtype: torch.dtype, capability: tuple[int, int]) -> bool:
    """Whether `op` has kernels other than ATen's for this dtype on GPUs of this compute capability."""
    return capability >= OLDEST[op].get(dtype, _NEVER)


def map_format(device: torch.device) -> torch.memory_format:
    """The layout of maps and of convolutions' weights: channels_last, but contiguous on GPUs that are too old for it.

    Below compute capability 7.0 there are no tensor cores, and cuDNN's float32 convolutions are slow in channels_last.
    """
    return torch.contiguous_format if _is_too_old(device, _forced.capability) else torch.channels_last


@_constant_when_compiled
def _is_too_old(device: torch.device, forced: tuple[int, int] | None) -> bool:
    return device.type == "cuda" and (forced or _capability_of(device.index or 0)) < (7, 0)


def capability(x: Tensor) -> tuple[int, int]:
    """Compute capability of the GPU that x is on, which determines the kernels' tiles."""
    return _forced.capability or _capability_of(x.device.index or 0)


@cache
def has_triton() -> bool:
    """Whether Triton is installed."""
    return importlib.util.find_spec("triton") is not None


@cache
def _capability_of(index: int) -> tuple[int, int]:
    return torch.cuda.get_device_capability(index)


def launch(kernel, grid: tuple[int, ...], *args, **options) -> None:
    """kernel[grid](*args, **options); does nothing for an empty grid, which CUDA rejects."""
    if 0 in grid:
        return
    if _forced.launch is not None:
        _forced.launch(kernel, grid, args, options)
    elif any(isinstance(x, Tensor) and type(x) not in (Tensor, torch.nn.Parameter) for x in args):
        torch.library.wrap_triton(kernel)[grid](*args, **options)  # a compiler is tracing, with its own tensor classes
    else:
        # Triton launches on the current GPU, which may not be that of the tensors.
        with torch.cuda.device_of(next(x for x in args if isinstance(x, Tensor))):
            kernel[grid](*args, **options)


@contextmanager
def force(
    provider: Provider,
    *,
    op: str | None = None,
    capability: tuple[int, int] | None = None,
    launch: Callable | None = None,
) -> Iterator[None]:
    """Within the context every op, or only `op`, runs with this provider, whatever the device of its tensors.

    For the whole process: threads that use it at the same time change each other's choice.

    Args:
        provider: "aten" to compare with torch; "triton" raises from Triton if the machine cannot run it.
        op: the only op that is affected; None for all.
        capability: compute capability to choose tiles and layouts for, in place of the GPU's.
        launch: called with (kernel, grid, args, options) instead of each launch.
    """
    global _forced
    before, _forced = _forced, _Forced(provider, op, capability, launch)
    try:
        yield
    finally:
        _forced = before
