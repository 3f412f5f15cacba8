"""AOTInductor packages: compiled code and weights in one file, which torch loads from Python or C++."""

import shutil
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import torch

from fastvae.errors import FastvaeError
from fastvae.exact_float32 import exact_float32
from fastvae.export.parts import BOUND, CHECKED_BATCHES, Part, worst_error
from fastvae.files.atomic_write import atomic_file
from fastvae.machine import compile_obstacle
from fastvae.version import __version__

# Run in a process that cannot import fastvae, as a user's may; it writes its results to files.
_CHECK = """
import sys
sys.modules["fastvae"] = None
import torch
package, folder = sys.argv[1:]
for settings in (torch.backends.cuda.matmul, torch.backends.cudnn.conv):
    settings.fp32_precision = "ieee"  # TF32 would round more than the bound allows
model = torch._inductor.aoti_load_package(package)
for i, x in enumerate(torch.load(f"{folder}/inputs.pt")):
    with torch.no_grad():
        result = model(x)
    torch.save(list(result) if isinstance(result, (tuple, list)) else [result], f"{folder}/outputs-{i}.pt")
"""


def check_possible(device: torch.device) -> None:
    """Raises FastvaeError unless torch can compile for the device."""
    if obstacle := compile_obstacle(device):
        raise FastvaeError(f"an AOTInductor package cannot be made here: {obstacle}; --format onnx needs no compiler")


def write(part: Part, path: Path, device: torch.device) -> float:
    """Compiles a part for batches of any size, and keeps it if its results are right in a process without fastvae.

    The package's metadata has "fastvae" (the version), "input", "outputs" and "shape" (of one input). PyTorch runs it
    without asking how its input lies in memory: it must be contiguous, or the results are wrong.

    Returns:
        The largest error against the plain module, relative to the largest value.

    Raises:
        FastvaeError: it does not compile, its error is above `BOUND`, or it cannot be written.
    """
    batch = torch.export.Dim("batch", min=1, max=2**20)
    with (
        atomic_file(path) as temporary,
        # PyTorch only accepts file names in UTF-8.
        tempfile.TemporaryDirectory(prefix="fastvae-export-") as folder,
        warnings.catch_warnings(),
    ):
        package = Path(folder) / f"{part.name}.pt2"
        warnings.simplefilter("ignore")
        with torch.no_grad():
            exported = torch.export.export(part.module, (part.example(2, device),), dynamic_shapes=({0: batch},))
            try:
                # The name must end in .pt2.
                torch._inductor.aoti_compile_and_package(
                    exported,
                    package_path=str(package),
                    inductor_configs={"aot_inductor.metadata": _metadata(part)},
                )
            except RuntimeError as error:
                lines = str(error).strip().splitlines()
                raise FastvaeError(f"{part.name} does not compile: {lines[0] if lines else error!r}") from error
        with exact_float32():
            error = worst_error(part, _run_in_process(package, part, device), device)
        if not error <= BOUND:
            raise FastvaeError(
                f"{path} was not written: expected results within {BOUND:g} of the largest value; they are {error:.2g} "
                "off"
            )
        shutil.copyfile(package, temporary)
    return error


def _metadata(part: Part) -> dict[str, str]:
    shape, outputs = " ".join(map(str, part.shape)), " ".join(part.outputs)
    return {"fastvae": __version__, "input": part.input, "outputs": outputs, "shape": shape}


def _run_in_process(package: Path, part: Part, device: torch.device):
    """A function from an input to the package's results, which a separate process computes for all inputs at once."""
    with tempfile.TemporaryDirectory(prefix="fastvae-export-") as folder:
        torch.save([part.example(batch, device) for batch in CHECKED_BATCHES], Path(folder) / "inputs.pt")
        done = subprocess.run(
            [sys.executable, "-c", _CHECK, str(package), folder], capture_output=True, text=True, errors="replace"
        )
        if done.returncode:
            last = done.stderr.strip().splitlines()[-1:]
            raise FastvaeError(f"the package of the {part.name} does not run without fastvae: {' '.join(last)}")
        results = [torch.load(Path(folder) / f"outputs-{i}.pt") for i in range(len(CHECKED_BATCHES))]
    by_batch = dict(zip(CHECKED_BATCHES, results, strict=True))
    return lambda x: by_batch[len(x)]
