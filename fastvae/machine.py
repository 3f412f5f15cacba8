"""What this machine can do, and what a run therefore uses: device, precision, compiler."""

import importlib.util
import os
import platform
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from fastvae.errors import UsageError
from fastvae.version import __version__

# Triton and Inductor refuse older GPUs; those run eager in float32 on cuDNN.
OLDEST_COMPILED = (7, 0)
# The reason of a choice that was not "auto".
_GIVEN = "as asked, or as the run began"
# With which bfloat16 is faster than float32 on a CPU, the best one first: 2.3 times with avx512_bf16 (Zen 4).
_BF16_INSTRUCTIONS = ("amx_bf16", "avx512_bf16")
# Limits that a person may set to oneDNN's instructions, and the ones of those that each hides.
_WITHOUT_AMX = ("AVX512_CORE_BF16", "AVX512_CORE_FP16", "AVX10_1_512")
_WITHOUT_BF16 = ("SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX2_VNNI_2", "AVX512_CORE", "AVX512_CORE_VNNI")


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


def usable_device(given: str | torch.device) -> torch.device:
    """A device as torch spells it, which is there.

    Raises:
        UsageError: torch knows no such device, or sees none here.
    """
    try:
        device = torch.device(given)
        if device.type == "cuda" and not torch.cuda.is_available():
            raise RuntimeError(f"torch sees no {device} here")
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, TypeError, NotImplementedError) as error:
        said = (str(error) or type(error).__name__).splitlines()[0][:200]
        raise UsageError(f'a device is "cpu", "cuda" or "cuda:1"; {given!r} cannot be used here: {said}') from error
    return device


def choose_precision(wanted: str, device: torch.device) -> Choice:
    """ "fp32" or "bf16" for the convolutions and linear layers of a run.

    On a CPU it follows from the processor's instructions and not from a trial, which depends on what else the machine
    does: every start on the same machine must compute the same.
    """
    if wanted != "auto":
        return Choice(wanted, _GIVEN)
    if device.type == "cuda":
        capability = torch.cuda.get_device_capability(device)
        native = capability >= (8, 0)
        words = f"the GPU's capability is {capability[0]}.{capability[1]}; bfloat16 needs 8.0"
        return Choice("bf16" if native else "fp32", words)
    return _cpu_precision()


def _cpu_precision() -> Choice:
    found = [name for name in _BF16_INSTRUCTIONS if name in processor_instructions()]
    if not found:
        known = " nor ".join(reversed(_BF16_INSTRUCTIONS))
        return Choice("fp32", f"the processor has neither {known}, with which bfloat16 is known to pay")
    if not torch.backends.mkldnn.is_available():
        return Choice(
            "fp32", f"the processor has {found[0]}, but this torch was built without oneDNN, which would use it"
        )
    if not torch.backends.cpu.get_cpu_capability().startswith("AVX512"):
        return Choice("fp32", f"the processor has {found[0]}, but ATEN_CPU_CAPABILITY keeps torch from AVX512")
    name = "ONEDNN_MAX_CPU_ISA" if "ONEDNN_MAX_CPU_ISA" in os.environ else "DNNL_MAX_CPU_ISA"
    limit = os.environ.get(name, "").upper()
    hidden = _BF16_INSTRUCTIONS if limit in _WITHOUT_BF16 else ("amx_bf16",) if limit in _WITHOUT_AMX else ()
    usable = [instruction for instruction in found if instruction not in hidden]
    if not usable:
        return Choice("fp32", f"the processor has {found[0]}, but {name}={limit} keeps oneDNN from it")
    return Choice("bf16", f"the processor has {usable[0]}")


def processor_instructions() -> frozenset[str]:
    """The instructions of `_BF16_INSTRUCTIONS` that the processor and the operating system offer."""
    tell = getattr(torch.cpu, "get_capabilities", None)
    if tell is not None:
        return frozenset(name for name in _BF16_INSTRUCTIONS if tell().get(name))
    # Older versions of torch tell less; every processor with tiles has multiplied bfloat16 with them.
    asked = {"amx_bf16": "_is_amx_tile_supported", "avx512_bf16": "_is_avx512_bf16_supported"}
    return frozenset(name for name, ask in asked.items() if getattr(torch.cpu, ask, bool)())


def choose_compile(wanted: str, device: torch.device) -> Choice:
    """ "on" or "off" for torch.compile of the training step."""
    obstacle = compile_obstacle(device)
    if wanted == "on" and obstacle:
        raise UsageError(f"--compile on, but {obstacle}; --compile auto runs without")
    if wanted != "auto":
        return Choice(wanted, _GIVEN)
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
        return Choice(wanted, _GIVEN)
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


def environment() -> dict[str, Any]:
    """Versions, processor, threads and GPU of this process."""
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
    }


def _commit() -> str | None:
    try:
        return subprocess.run(
            ["git", "describe", "--always", "--dirty"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
