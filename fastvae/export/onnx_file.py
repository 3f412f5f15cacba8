"""ONNX files, each checked with onnxruntime."""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from fastvae.errors import FastvaeError
from fastvae.export.parts import BOUND, Part, worst_error
from fastvae.files.atomic_write import atomic_file
from fastvae.version import __version__

# The version that torch 2.11 to 2.13 export without conversion. Pad with "edge" and ConvTranspose are in all versions.
OPSET = 18


def check_installed() -> None:
    """Raises FastvaeError unless onnx, onnxruntime and onnxscript are installed."""
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise FastvaeError(f"exporting to ONNX needs {error.name}: pip install -e '.[export]'") from error


def write(part: Part, path: Path) -> float:
    """Exports a part for batches of any size, and keeps it if onnxruntime's results on the CPU are right.

    Returns:
        The largest error against the plain module, relative to the largest value.

    Raises:
        FastvaeError: its error is above `BOUND`, or it cannot be written.
    """
    import onnx

    batch = torch.export.Dim("batch", min=1, max=2**20)
    with atomic_file(path) as temporary:
        with _quiet():
            program = torch.onnx.export(
                part.module,
                (part.example(2),),
                dynamo=True,
                opset_version=OPSET,
                input_names=[part.input],
                output_names=list(part.outputs),
                dynamic_shapes=({0: batch},),
                verbose=False,
            )
        model = program.model_proto
        onnx.helper.set_model_props(model, _metadata(part))
        onnx.checker.check_model(model)
        temporary.write_bytes(model.SerializeToString())
        error = worst_error(part, runner(temporary, part))
        if not error <= BOUND:
            raise FastvaeError(
                f"{path} was not written: expected onnxruntime's results within {BOUND:g} of the largest value; they "
                f"are {error:.2g} off"
            )
    return error


def runner(path: Path, part: Part):
    """A function from an input to the results of the file, computed by onnxruntime on the CPU."""
    import onnxruntime

    # As bytes, since onnxruntime only accepts file names in UTF-8.
    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])

    def run(x: Tensor) -> list[Tensor]:
        results = session.run(list(part.outputs), {part.input: x.cpu().numpy()})
        return [torch.from_numpy(y) for y in results]

    return run


def _metadata(part: Part) -> dict[str, str]:
    images = "float32 [batch, 3, height, width], RGB, in [-1, 1]: 8-bit pixels / 127.5 - 1"
    return {
        "made by": f"fastvae {__version__}",
        "images": images,
        part.input: images if part.input == "images" else f"float32 [batch, {part.shape[0]}], z of the prior N(0, I)",
    }


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hides the exporter's progress messages and its warnings about unrelated packages."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)
