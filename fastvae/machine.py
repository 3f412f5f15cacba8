"""What this machine can do, and what a run therefore uses: device, precision, compiler."""

import importlib.util
import os
import shutil
import time
from dataclasses import dataclass
from functools import cache

import torch
import torch.nn.functional as F

from fastvae.errors import UsageError

# Triton and Inductor refuse older GPUs; those run eager in float32 on cuDNN.
OLDEST_COMPILED = (7, 0)
# bfloat16 has to be this much faster on the CPU before it is worth its rounding.
WORTHWHILE = 1.2


@dataclass(frozen=True)
class Choice:
    """One decision and its reason, for people."""

    value: str
    reason: str


def choose_device(wanted: str) -> torch.device:
    """Where a run happens.

    Raises:
        UsageError: CUDA is asked for and there is none.
    """
    if wanted == "cuda" and not torch.cuda.is_available():
        raise UsageError(
            "--device cuda, but torch sees no CUDA device; `fastvae info` says more, --device cpu runs here"
        )
    return torch.device("cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu")


def choose_precision(wanted: str, device: torch.device) -> Choice:
    """ "fp32" or "bf16" for the convolutions and linear layers of a run."""
    if wanted != "auto":
        return Choice(wanted, "as asked")
    if device.type == "cuda":
        capability = torch.cuda.get_device_capability(device)
        native = capability >= (8, 0)
        words = f"the GPU's capability is {capability[0]}.{capability[1]}; bfloat16 needs 8.0"
        return Choice("bf16" if native else "fp32", words)
    ratio = cpu_bf16_speedup()
    words = f"a trial convolution is {ratio:.1f} times as fast in bfloat16, of {WORTHWHILE} that would pay"
    return Choice("bf16" if ratio >= WORTHWHILE else "fp32", words)


def choose_compile(wanted: str, device: torch.device) -> Choice:
    """ "on" or "off" for torch.compile of the training step."""
    obstacle = compile_obstacle(device)
    if wanted == "on" and obstacle:
        raise UsageError(f"--compile on, but {obstacle}; --compile auto runs without")
    if wanted != "auto":
        return Choice(wanted, "as asked")
    if obstacle:
        return Choice("off", obstacle)
    if device.type == "cpu":
        # bench/records: 0.98 times the eager speed in float32, 0.93 in bfloat16 (2026-11-24, AVX512); 1.02 in float32
        # after 70 s of compiling (2026-11-25, AVX2).
        return Choice(
            "off", "on the CPU compiling takes minutes and the step was at most 2 % faster for it where it was measured"
        )
    return Choice("on", "there is a GPU that the compiler supports")


def choose_cuda_graph(wanted: str, device: torch.device) -> Choice:
    """ "on" or "off" for capturing the training step.

    Raises:
        UsageError: it is asked for on a CPU.
    """
    if wanted == "on" and device.type == "cpu":
        raise UsageError("--cuda-graph on, but this run is on the CPU; --cuda-graph auto runs without")
    if wanted != "auto":
        return Choice(wanted, "as asked")
    return Choice(*(("on", "the step runs on a GPU") if device.type == "cuda" else ("off", "the step runs on the CPU")))


def compile_obstacle(device: torch.device) -> str | None:
    """Why torch.compile cannot run here, or None."""
    if device.type == "cuda":
        capability = torch.cuda.get_device_capability(device)
        if capability < OLDEST_COMPILED:
            return f"the GPU's capability {capability[0]}.{capability[1]} is below 7.0, which the compiler needs"
        if importlib.util.find_spec("triton") is None:
            return "Triton is not installed, which torch.compile needs on a GPU"
    if host_compiler() is None:
        return "there is no C++ compiler (g++ or clang++), which torch.compile needs"
    return None


def host_compiler() -> str | None:
    """The C++ compiler that torch.compile would find, or None."""
    names = (os.environ.get("CXX"), "c++", "g++", "clang++", "cl")
    return next((found for name in names if name and (found := shutil.which(name))), None)


@cache
def cpu_bf16_speedup() -> float:
    """Time of a typical convolution, forward and backward, in float32 over that in bfloat16; a tenth of a second."""
    x = torch.randn(8, 64, 32, 32).contiguous(memory_format=torch.channels_last)
    weight = torch.randn(64, 64, 3, 3).contiguous(memory_format=torch.channels_last)

    def best_of(dtype: torch.dtype, repeats: int = 5) -> float:
        inputs = x.to(dtype).requires_grad_()
        times = []
        for _ in range(repeats + 1):
            start = time.perf_counter()
            torch.autograd.grad(F.conv2d(inputs, weight.to(dtype), padding=1).sum(), inputs)
            times.append(time.perf_counter() - start)
        return min(times[1:])

    return best_of(torch.float32) / best_of(torch.bfloat16)
