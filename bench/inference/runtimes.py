"""Ways to run a model on a CPU, each as the users of that runtime would have it at its fastest, for one batch.

Every call takes the same float32 images and returns float32, whatever it computes in.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from fastvae.export.onnx_file import OPSET

Call = Callable[[], Tensor]


def eager(reconstruct: Callable[[Tensor], Tensor], x: Tensor, dtype: torch.dtype = torch.float32) -> Call:
    """The model as it is, in inference mode."""

    def call() -> Tensor:
        with torch.inference_mode():
            return reconstruct(x.to(dtype)).float()

    return call


def compiled(reconstruct: Callable[[Tensor], Tensor], x: Tensor, dtype: torch.dtype = torch.float32) -> Call:
    """By torch.compile; the weights become constants in the layout that oneDNN wants."""
    run = torch.compile(lambda x: reconstruct(x.to(dtype)).float(), dynamic=False, options={"freezing": True})

    def call() -> Tensor:
        with torch.no_grad():
            return run(x)

    return call


def aot_inductor(model: nn.Module, x: Tensor) -> Call:
    """As an AOTInductor package with frozen weights."""
    with torch.no_grad(), tempfile.TemporaryDirectory(prefix="fastvae-bench-") as folder:
        exported = torch.export.export(model, (x,))
        package = torch._inductor.aoti_compile_and_package(
            exported, package_path=str(Path(folder) / "model.pt2"), inductor_configs={"freezing": True}
        )
        run = torch._inductor.aoti_load_package(package)
    return lambda: run(x)


def onnxruntime(model: nn.Module, x: Tensor) -> Call:
    """onnxruntime, of an ONNX file. In float32: on x86 it has no convolutions in bfloat16."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(_onnx(model, x), options, providers=["CPUExecutionProvider"])
    given = {"x": x.numpy()}
    return lambda: torch.from_numpy(session.run(None, given)[0])


def openvino(model: nn.Module, x: Tensor, dtype: torch.dtype = torch.float32) -> Call:
    """OpenVINO, of an ONNX file, set for latency; one request, whose input and result are not copied.

    Raises:
        RuntimeError: it does not compute in this dtype here.
    """
    from openvino import Core, Type
    from openvino import Tensor as InputTensor

    wanted = {torch.float32: Type.f32, torch.bfloat16: Type.bf16}[dtype]
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": wanted,
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
    }
    core = Core()
    network = core.compile_model(core.read_model(_onnx(model, x)), "CPU", settings)
    chosen = network.get_property("INFERENCE_PRECISION_HINT")
    if chosen != wanted:  # the processor may lack the instructions
        raise RuntimeError(f"OpenVINO computes in {chosen} here, not in {wanted}")
    request = network.create_infer_request()
    request.set_input_tensor(InputTensor(x.numpy(), shared_memory=True))

    def call() -> Tensor:
        request.infer()
        return torch.from_numpy(request.get_output_tensor().data)

    return call


def _onnx(model: nn.Module, x: Tensor) -> bytes:
    program = torch.onnx.export(model, (x,), dynamo=True, opset_version=OPSET, input_names=["x"], verbose=False)
    return program.model_proto.SerializeToString()
