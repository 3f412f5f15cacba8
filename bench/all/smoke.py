"""What this machine is, and whether it works at all: python -m bench.all.smoke FILE.

Versions, processor and GPU, its clocks as nvidia-smi reports them, a tiny CUDA graph, a Triton kernel, and which
implementation runs each op. The JSON is written after every answer, so that a machine that hangs leaves those before.
"""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from bench.reporting import record
from bench.reporting.compact_json import write_json
from fastvae.kernels import conv_relu, conv_relu_forms, dispatch, feature_loss

_ASKED = "name,driver_version,pstate,clocks.sm,clocks.max.sm,clocks.mem,power.draw,power.limit,temperature.gpu"


def main(path: Path) -> int:
    """Writes the file; returns 1 if something does not work, else 0."""
    content: dict[str, Any] = {"on_gpu": False, "failures": {}}
    questions: dict[str, Callable[[], Any]] = {"on_gpu": torch.cuda.is_available, "machine": record.this_machine}
    questions |= {"name": record.machine, "record": lambda: record.path_for("all").stem}
    if torch.cuda.is_available():
        questions |= {"gpu": _gpu, "nvidia_smi": _nvidia_smi, "captured_graph": _captured, "triton": _triton}
    questions |= {"providers": _providers, "conv_relu": _conv_relu}
    for name, ask in questions.items():
        try:
            content[name] = ask()
        except Exception as error:  # the next question may have an answer
            content["failures"][name] = f"{type(error).__name__}: {error}"
        print(f"{name}: {content.get(name, content['failures'].get(name))}")
        write_json(path, content)
    return 1 if content["failures"] else 0


def _gpu() -> dict[str, Any]:
    properties = torch.cuda.get_device_properties()
    return {
        "name": properties.name,
        "capability": list(torch.cuda.get_device_capability()),
        "multiprocessors": properties.multi_processor_count,
        "memory_bytes": properties.total_memory,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
    }


def _nvidia_smi() -> str | None:
    """One line of values, in the order of `_ASKED`. Nothing is set."""
    if not shutil.which("nvidia-smi"):
        return None
    command = ["nvidia-smi", f"--query-gpu={_ASKED}", "--format=csv,noheader"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    return f"{_ASKED}: {(done.stdout or done.stderr).strip()}"


def _captured() -> str:
    x = torch.zeros(8, device="cuda")
    with torch.cuda.stream(torch.cuda.Stream()):
        y = x + 1  # loads the kernel, which a capture forbids
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y = x + 1
    x.fill_(2.0)
    graph.replay()
    if not torch.equal(y.cpu(), torch.full((8,), 3.0)):
        raise RuntimeError(f"a replayed graph computed {y.tolist()} for 2 + 1")
    return "works"


def _triton() -> str:
    x = torch.ones(2, 4, 8, 8, device="cuda", dtype=torch.float32).contiguous(memory_format=torch.channels_last)
    loss = feature_loss([x], [torch.zeros_like(x)], [1.0])
    torch.cuda.synchronize()
    return f"feature_loss by {dispatch.provider('feature_loss', x)}: {loss.sum().item():g}"


def _providers() -> dict[str, str]:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return {
        f"{op} {str(dtype).removeprefix('torch.')}": dispatch.provider_on(op, device, dtype)
        for op, dtypes in dispatch.OLDEST.items()
        for dtype in dtypes or (torch.float32,)  # of an op without kernels of ours on GPUs
    }


def _conv_relu() -> dict[str, Any]:
    """Runs it as the paper's step does at conv1_2, small on a CPU; on a GPU all forms are tried, and one is chosen."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.bfloat16 if torch.cuda.is_available() else torch.float32
    shape = (128, 64, 64, 64) if torch.cuda.is_available() else (2, 64, 16, 16)
    x = torch.ones(shape, device=device, dtype=dtype).contiguous(memory_format=torch.channels_last)
    weight = torch.ones(64, 64, 3, 3, device=device, dtype=dtype).contiguous(memory_format=torch.channels_last)
    y = conv_relu(x, weight, torch.zeros(64, device=device, dtype=dtype), padding=1)
    return {"by": dispatch.provider("conv_relu", x), "largest": y.max().item(), "trials": conv_relu_forms.choices()}


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
