"""`fastvae info`: what this machine will run, and what falls back and why."""

import importlib
import importlib.util
import os
import platform
from importlib.metadata import PackageNotFoundError, version

import tyro

_WITHOUT_DALI = "Pillow decodes instead; pip install -e '.[dali]'"


def run(argv: list[str]) -> int:
    """Prints a line for each topic."""
    tyro.cli(_info, prog="fastvae info", args=argv)
    return 0


def _info() -> None:
    """Prints what this machine will run: GPU, Triton, DALI, compiler, precision, and what falls back and why."""
    import torch

    from fastvae import machine
    from fastvae.data.decoders import dali as decode_dali
    from fastvae.version import __version__

    device = machine.choose_device("auto")
    precision = machine.choose_precision("auto", device)
    compiled = machine.choose_compile("auto", device)
    graph = machine.choose_cuda_graph("auto", device)
    rows = {
        "fastvae": f"{__version__}, Python {platform.python_version()}, torch {torch.__version__}",
        "device": _device(device),
        "precision": f"{precision.value}: {precision.reason}",
        "compile": f"{compiled.value}: {compiled.reason}",
        "CUDA graph": f"{graph.value}: {graph.reason}",
        "Triton": _triton(device),
        "compiler": machine.host_compiler() or "none found (g++ or clang++): PyTorch's own operations run, slower",
        "DALI": decode_dali.describe() if decode_dali.is_available() else f"not installed: {_WITHOUT_DALI}",
        "torchrun": _torchrun(device),
        "TensorBoard": _tensorboard(),
        "cache": _cache(),
    }
    for name, value in rows.items():
        print(f"{name:<12} {value}")


def _device(device) -> str:
    import torch

    if device.type == "cpu":
        why = "torch was built without CUDA" if torch.version.cuda is None else "torch sees no CUDA device"
        return f"CPU, {torch.get_num_threads()} threads of {os.cpu_count()} cores ({why})"
    major, minor = torch.cuda.get_device_capability(device)
    memory = torch.cuda.get_device_properties(device).total_memory / 2**30
    return f"{torch.cuda.get_device_name(device)}, capability {major}.{minor}, {memory:.0f} GiB"


def _triton(device) -> str:
    from fastvae.machine import compile_obstacle

    if importlib.util.find_spec("triton") is None:
        return "not installed: the ops run on ATen"
    try:  # the module, since the distribution has other names for ROCm and Windows
        found = getattr(importlib.import_module("triton"), "__version__", "of unknown version")
    except Exception as error:  # of a build for another torch or system
        return f"cannot be imported ({error}): the ops run on ATen"
    if device.type == "cpu":
        return f"{found}, unused on the CPU, where ATen and C++ run the ops"
    obstacle = compile_obstacle(device)
    return f"{found}, unused: {obstacle}" if obstacle else f"{found}, used by torch.compile"


def _cache() -> str:
    from fastvae.errors import FastvaeError
    from fastvae.files.cache import cache_folder

    try:
        return str(cache_folder())
    except FastvaeError as error:
        return f"none: {error}"


def _torchrun(device) -> str:
    import torch

    if not torch.distributed.is_available():
        return "this torch has no torch.distributed: runs use one process"
    if device.type == "cpu":
        return "several processes sum gradients with gloo"
    if not torch.distributed.is_nccl_available():
        return "this torch has no NCCL: runs use one GPU"
    count = torch.cuda.device_count()
    return f"{count} GPUs: torchrun --nproc-per-node {count} -m fastvae train ..." if count > 1 else "one GPU"


def _tensorboard() -> str:
    try:
        return version("tensorboard")
    except PackageNotFoundError:
        return "not installed: stats.jsonl holds the same; pip install -e '.[eval]'"
