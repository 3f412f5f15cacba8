"""Chooses what a run uses on this machine: device, precision, compiler, CUDA graph."""

import importlib.util
import os
import platform
import subprocess
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from fastvae.errors import UsageError
from fastvae.kernels import conv_relu_forms
from fastvae.native_library import host_compiler
from fastvae.version import __version__

# Triton and Inductor do not support older GPUs; those run eager in float32 on cuDNN.
OLDEST_COMPILED = (7, 0)
# The reason for a choice that was not "auto".
_GIVEN = "as requested, or as when the run began"
# Instructions that make bfloat16 faster than float32 on a CPU, the best first: 2.3 times with avx512_bf16 (Zen 4).
_BF16_INSTRUCTIONS = ("amx_bf16", "avx512_bf16")
# Values of ONEDNN_MAX_CPU_ISA that disable amx_bf16, and those that disable both instructions.
_WITHOUT_AMX = ("AVX512_CORE_BF16", "AVX512_CORE_FP16", "AVX10_1_512")
_WITHOUT_BF16 = ("SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX2_VNNI_2", "AVX512_CORE", "AVX512_CORE_VNNI")


@dataclass(frozen=True)
class Choice:
    """One decision and its human-readable reason."""

    value: str
    reason: str


def choose_device(wanted: str) -> torch.device:
    """The device of a run.

    Raises:
        UsageError: CUDA requested but not available.
    """
    if wanted == "cuda" and not torch.cuda.is_available():
        raise UsageError(
            "--device cuda requested, but torch sees no CUDA device; see `fastvae info`, or use --device cpu"
        )
    return torch.device("cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu")


def usable_device(given: str | torch.device) -> torch.device:
    """A torch device that is available here.

    Raises:
        UsageError: torch does not know the device, or it is not available.
    """
    try:
        device = torch.device(given)
        if device.type == "cuda" and not torch.cuda.is_available():
            raise RuntimeError(f"torch sees no {device}")
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, TypeError, NotImplementedError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0][:200]
        raise UsageError(f'expected a device such as "cpu", "cuda" or "cuda:1"; got {given!r}: {reason}') from error
    return device


def choose_precision(wanted: str, device: torch.device) -> Choice:
    """ "fp32" or "bf16" for the convolutions and linear layers of a run.

    On a CPU the processor's instructions decide, not a timing, which depends on what else is running: every start on
    the same machine must compute the same.
    """
    if wanted != "auto":
        return Choice(wanted, _GIVEN)
    if device.type == "cuda":
        capability = torch.cuda.get_device_capability(device)
        native = capability >= (8, 0)
        reason = f"the GPU's capability is {capability[0]}.{capability[1]}; bfloat16 needs 8.0"
        return Choice("bf16" if native else "fp32", reason)
    return _cpu_precision()


def _cpu_precision() -> Choice:
    available = [name for name in _BF16_INSTRUCTIONS if name in processor_instructions()]
    if not available:
        known = " nor ".join(reversed(_BF16_INSTRUCTIONS))
        return Choice("fp32", f"the processor has neither {known}, which make bfloat16 faster")
    if not torch.backends.mkldnn.is_available():
        return Choice(
            "fp32",
            f"the processor has {available[0]}, but this torch was built without oneDNN",
        )
    if not torch.backends.cpu.get_cpu_capability().startswith("AVX512"):
        return Choice("fp32", f"the processor has {available[0]}, but ATEN_CPU_CAPABILITY disables AVX512")
    name = "ONEDNN_MAX_CPU_ISA" if "ONEDNN_MAX_CPU_ISA" in os.environ else "DNNL_MAX_CPU_ISA"
    limit = os.environ.get(name, "").upper()
    hidden = _BF16_INSTRUCTIONS if limit in _WITHOUT_BF16 else ("amx_bf16",) if limit in _WITHOUT_AMX else ()
    usable = [instruction for instruction in available if instruction not in hidden]
    if not usable:
        return Choice("fp32", f"the processor has {available[0]}, but {name}={limit} disables it in oneDNN")
    return Choice("bf16", f"the processor has {usable[0]}")


def processor_instructions() -> frozenset[str]:
    """The instructions in `_BF16_INSTRUCTIONS` that the processor and the operating system support."""
    get_capabilities = getattr(torch.cpu, "get_capabilities", None)
    if get_capabilities is not None:
        return frozenset(name for name in _BF16_INSTRUCTIONS if get_capabilities().get(name))
    # Older versions of torch report less; every processor with AMX tiles can multiply bfloat16 with them.
    checks = {"amx_bf16": "_is_amx_tile_supported", "avx512_bf16": "_is_avx512_bf16_supported"}
    return frozenset(name for name, check in checks.items() if getattr(torch.cpu, check, bool)())


def choose_compile(wanted: str, device: torch.device) -> Choice:
    """ "on" or "off" for torch.compile of the training step."""
    obstacle = compile_obstacle(device)
    if wanted == "on" and obstacle:
        raise UsageError(f"--compile on requested, but {obstacle}; --compile auto runs without compiling")
    if wanted != "auto":
        return Choice(wanted, _GIVEN)
    if obstacle:
        return Choice("off", obstacle)
    if device.type == "cpu":
        # bench/records: 0.98 times the eager speed in float32, 0.93 in bfloat16 (2026-11-24, AVX512); 1.02 in float32
        # after 70 s of compiling (2026-11-25, AVX2).
        return Choice("off", "on the CPU compiling takes minutes and made the step at most 2 % faster in measurements")
    return Choice("on", "the compiler supports this GPU")


def choose_cuda_graph(wanted: str, device: torch.device) -> Choice:
    """ "on" or "off" for capturing the training step.

    Raises:
        UsageError: requested on a CPU.
    """
    if wanted == "on" and device.type == "cpu":
        raise UsageError("--cuda-graph on requested, but this run is on the CPU; --cuda-graph auto runs without")
    if wanted != "auto":
        return Choice(wanted, _GIVEN)
    return Choice(*(("on", "the step runs on a GPU") if device.type == "cuda" else ("off", "the step runs on the CPU")))


def compile_obstacle(device: torch.device) -> str | None:
    """Why torch.compile cannot run on this device, or None."""
    if device.type == "cuda":
        capability = torch.cuda.get_device_capability(device)
        if capability < OLDEST_COMPILED:
            return f"the GPU's capability is {capability[0]}.{capability[1]}, and the compiler needs 7.0"
        if importlib.util.find_spec("triton") is None:
            return "Triton is not installed, which torch.compile needs on a GPU"
    if host_compiler() is None:
        return "there is no C++ compiler (g++ or clang++), which torch.compile needs"
    return None


def unlimited_compilations() -> AbstractContextManager:
    """Within it torch.compile goes on compiling.

    It compiles a function for at most eight kinds of calls, and then runs it uncompiled without a word, or raises with
    fullgraph. One function of ours stands for more: all passes of all steps, or a method for all batch sizes.
    """
    return torch._dynamo.config.patch(recompile_limit=10_000, accumulated_recompile_limit=10_000)


def environment() -> dict[str, Any]:
    """Versions, processor, threads and GPU, as records of a run store them.

    After convolutions of the loss network have run on a GPU, also which form of `conv_relu` each got, and the times of
    all forms: two runs on the same kind of machine may differ in this.
    """
    cuda = torch.cuda.is_available()
    return {
        "fastvae": __version__,
        "commit": _commit(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "platform": platform.platform(),
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if cuda else None,
        **({"conv_relu": trials} if (trials := conv_relu_forms.choices()) else {}),
    }


def _commit() -> str | None:
    here = Path(__file__)
    try:
        _git("ls-files", "--error-unmatch", here.name, folder=here.parent)  # not of a repository around site-packages
        return _git("describe", "--always", "--dirty", folder=here.parent)
    except (OSError, subprocess.CalledProcessError):
        return None


def _git(*arguments: str, folder: Path) -> str:
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}
    done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=True, env=environment)
    return done.stdout.strip()
