"""Ways to reconstruct images on a CPU, each as its users would run it, in a process of its own (`isolated`)."""

import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from bench.inference.contenders import plain_vae
from bench.measuring.ours import OURS
from fastvae import VAE
from fastvae.export.onnx_file import OPSET
from fastvae.inference.eager import EagerVAE
from fastvae.inference.fold import FoldedDecoder, FoldedEncoder, FoldedReconstruction

# From a VAE and a batch to a call that reconstructs the batch.
Build = Callable[[VAE, Tensor], Callable[[], Tensor]]


def plain_eager(vae: VAE, x: Tensor) -> Callable[[], Tensor]:
    """The composition of stock modules."""
    return _in_inference_mode(plain_vae(vae), x)


def plain_eager_channels_last(vae: VAE, x: Tensor) -> Callable[[], Tensor]:
    """The same in the layout that oneDNN likes."""
    return _in_inference_mode(_channels_last(plain_vae(vae)), _channels_last(x))


def plain_compiled(vae: VAE, x: Tensor) -> Callable[[], Tensor]:
    """By torch.compile with frozen weights, for this batch."""
    return _compiled(_channels_last(plain_vae(vae)), _channels_last(x))


def plain_onnxruntime(vae: VAE, x: Tensor) -> Callable[[], Tensor]:
    """onnxruntime, of the stock modules' export."""
    return _onnxruntime(_Reconstruction(plain_vae(vae)).eval(), x)


def exported_onnxruntime(vae: VAE, x: Tensor) -> Callable[[], Tensor]:
    """onnxruntime, of what `fastvae export` writes: already folded, upsampling as one transposed convolution."""
    return _onnxruntime(_folded(vae).eval(), x)


def folded_eager(vae: VAE, x: Tensor) -> Callable[[], Tensor]:
    """fastvae's fallback: folded, in torch's operations, that is oneDNN."""
    return _in_inference_mode(EagerVAE(vae, torch.float32), x)


def folded_compiled(vae: VAE, x: Tensor) -> Callable[[], Tensor]:
    """The folded modules by torch.compile with frozen weights, for this batch."""
    return _compiled(_channels_last(_folded(vae)), _channels_last(x))


def folded_aoti(vae: VAE, x: Tensor) -> Callable[[], Tensor]:
    """The folded modules as an AOTInductor package with frozen weights, for this batch."""
    x = _channels_last(x)
    with torch.no_grad(), tempfile.TemporaryDirectory(prefix="fastvae-bench-") as folder:
        exported = torch.export.export(_channels_last(_folded(vae)), (x,))
        package = torch._inductor.aoti_compile_and_package(
            exported, package_path=str(Path(folder) / "model.pt2"), inductor_configs={"freezing": True}
        )
        model = torch._inductor.aoti_load_package(package)
    return lambda: model(x)


def accelerated(vae: VAE, x: Tensor) -> Callable[[], Tensor]:
    """`vae.accelerate()`, its checks of the input included."""
    fast = vae.accelerate()
    if fast.backend != "native":
        raise RuntimeError(f"accelerate fell back to {fast.backend}")
    return lambda: fast.reconstruct(x)


ACCELERATE = f"{OURS} accelerate"
# The peers first, then ours, then other designs that fastvae could have chosen.
CONTENDERS: dict[str, Build] = {
    "plain eager": plain_eager,
    "plain eager channels_last": plain_eager_channels_last,
    "plain compiled": plain_compiled,
    "plain onnxruntime": plain_onnxruntime,
    "exported file, onnxruntime": exported_onnxruntime,
    ACCELERATE: accelerated,
    "folded eager": folded_eager,
    "folded compiled": folded_compiled,
    "folded AOTInductor": folded_aoti,
}
# The best of these is the target of "2x the best": eager, compiled, and onnxruntime of either file.
PEERS = tuple(CONTENDERS)[:5]


class _Reconstruction(nn.Module):
    def __init__(self, vae: VAE):
        super().__init__()
        self.vae = vae

    def forward(self, images: Tensor) -> Tensor:
        return self.vae.reconstruct(images)


def _folded(vae: VAE) -> FoldedReconstruction:
    return FoldedReconstruction(FoldedEncoder(vae), FoldedDecoder(vae))


def _channels_last(x: Tensor | nn.Module):
    if isinstance(x, Tensor):
        return x.contiguous(memory_format=torch.channels_last)
    return x.to(memory_format=torch.channels_last)


def _in_inference_mode(model, x: Tensor) -> Callable[[], Tensor]:
    def call() -> Tensor:
        with torch.inference_mode():
            return model.reconstruct(x)

    return call


def _compiled(model: nn.Module, x: Tensor) -> Callable[[], Tensor]:
    # The weights become constants in the layout that oneDNN wants.
    run = torch.compile(
        model.reconstruct if isinstance(model, VAE) else model, dynamic=False, options={"freezing": True}
    )

    def call() -> Tensor:
        with torch.no_grad():
            return run(x)

    return call


def _onnxruntime(model: nn.Module, x: Tensor) -> Callable[[], Tensor]:
    import onnxruntime

    program = torch.onnx.export(model, (x,), dynamo=True, opset_version=OPSET, input_names=["x"], verbose=False)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(
        program.model_proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    given = {"x": x.numpy()}
    return lambda: torch.from_numpy(session.run(None, given)[0])
