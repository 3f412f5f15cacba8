"""`fastvae export RUN --format onnx|aoti`: encoder, decoder and reconstruction as files for other programs."""

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from fastvae.cli.parsing import RunName, Weights, parse
from fastvae.errors import UsageError
from fastvae.files.atomic_write import check_writable
from fastvae.files.places import is_file


@dataclass(frozen=True)
class _Command:
    """Writes a run's encoder, decoder and reconstruction (both in one) for programs without fastvae, and checks them.

    The batch may be of any size. onnx: ONNX files, weights inside, for any machine. aoti: AOTInductor packages, which
    torch loads from Python or C++, compiled for the processor and the device of this machine.
    """

    run: tyro.conf.Positional[RunName]  # a run folder, a checkpoint, a saved folder, a model.safetensors, or user/name
    format: Literal["onnx", "aoti"] = "onnx"  # of the files
    weights: Weights = "auto"  # of a run with --ema: the average, or those of the last step; auto: the average
    out: Path = Path("exported")  # folder to write into
    parts: tuple[Literal["encoder", "decoder", "reconstruct"], ...] = ("encoder", "decoder", "reconstruct")  # which
    device: Literal["auto", "cpu", "cuda"] = "auto"  # where an AOTInductor package runs; auto: CUDA where there is one

    def __post_init__(self) -> None:
        if not self.parts:
            raise UsageError("--parts names none: encoder, decoder, reconstruct")


def run(argv: list[str]) -> int:
    """Parses the flags, exports and checks.

    Raises:
        FastvaeError: the run cannot be read, something is not installed, a file cannot be written or is wrong.
    """
    command = parse(_Command, prog="fastvae export", args=argv)
    if is_file(command.out):
        raise UsageError(f"--out {command.out} is a file: it names the folder to write into")
    suffix = {"onnx": ".onnx", "aoti": ".pt2"}[command.format]
    for name in command.parts:
        check_writable(command.out / f"{name}{suffix}")
    import torch

    from fastvae import load
    from fastvae.export import aoti_package, onnx_file
    from fastvae.export.parts import BOUND, PARTS, parts_of
    from fastvae.machine import choose_device

    device = torch.device("cpu") if command.format == "onnx" else choose_device(command.device)
    if command.format == "onnx":
        onnx_file.check_installed()
        print(f"ONNX, opset {onnx_file.OPSET}, batches of any size, checked with onnxruntime on the CPU")
    else:
        aoti_package.check_possible(device)
        what = torch.cuda.get_device_name(device) if device.type == "cuda" else "processors like this one, CPU only"
        print(f"AOTInductor packages of torch {torch.__version__} for {what}, contiguous batches of any size")
    vae = load(command.run, weights=command.weights)
    for part in parts_of(vae, tuple(name for name in PARTS if name in command.parts), device):
        path = command.out / f"{part.name}{suffix}"
        start = time.perf_counter()
        if command.format == "onnx":
            error = onnx_file.write(part, path)
        else:
            print(f"compiling the {part.name}, which takes about half a minute", file=sys.stderr, flush=True)
            error = aoti_package.write(part, path, device)
        print(
            f"{path}: {part.input} -> {', '.join(part.outputs)}, {path.stat().st_size / 2**20:.1f} MiB, "
            f"{error:.1e} of the largest value off at most (bound {BOUND:g}), {time.perf_counter() - start:.1f} s"
        )
    return 0
