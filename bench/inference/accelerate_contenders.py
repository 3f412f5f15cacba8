"""The ways to reconstruct images on a CPU that are compared, each in a process of its own (`isolated`)."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from bench.inference import runtimes
from bench.inference.contenders import plain_vae
from bench.inference.runtimes import Call
from bench.measuring.ours import OURS
from fastvae import VAE
from fastvae.inference.eager import EagerVAE
from fastvae.inference.fold import FoldedDecoder, FoldedEncoder, FoldedReconstruction

# From a VAE, a batch and the dtype that is computed in to a call that reconstructs the batch.
Build = Callable[[VAE, Tensor, torch.dtype], Call]


def plain_eager(vae: VAE, x: Tensor, dtype: torch.dtype) -> Call:
    """The composition of stock modules."""
    return runtimes.eager(plain_vae(vae).to(dtype).reconstruct, x, dtype)


def plain_eager_channels_last(vae: VAE, x: Tensor, dtype: torch.dtype) -> Call:
    """The same in the layout that oneDNN likes."""
    return runtimes.eager(_channels_last(plain_vae(vae).to(dtype)).reconstruct, _channels_last(x), dtype)


def plain_compiled(vae: VAE, x: Tensor, dtype: torch.dtype) -> Call:
    """By torch.compile with frozen weights."""
    return runtimes.compiled(_channels_last(plain_vae(vae).to(dtype)).reconstruct, _channels_last(x), dtype)


def plain_onnxruntime(vae: VAE, x: Tensor, _: torch.dtype) -> Call:
    """onnxruntime, of the stock modules' export."""
    return runtimes.onnxruntime(_Reconstruction(plain_vae(vae)).eval(), x)


def exported_onnxruntime(vae: VAE, x: Tensor, _: torch.dtype) -> Call:
    """onnxruntime, of what `fastvae export` writes: already folded, upsampling as one transposed convolution."""
    return runtimes.onnxruntime(_folded(vae).eval(), x)


def plain_openvino(vae: VAE, x: Tensor, dtype: torch.dtype) -> Call:
    """OpenVINO, of the stock modules' export."""
    return runtimes.openvino(_Reconstruction(plain_vae(vae)).eval(), x, dtype)


def exported_openvino(vae: VAE, x: Tensor, dtype: torch.dtype) -> Call:
    """OpenVINO, of what `fastvae export` writes."""
    return runtimes.openvino(_folded(vae).eval(), x, dtype)


def accelerated(vae: VAE, x: Tensor, dtype: torch.dtype) -> Call:
    """`vae.accelerate()` for this size of batch, its checks of the input included.

    Raises:
        RuntimeError: it does not run on the engine in C++.
    """
    fast = vae.accelerate(dtype=dtype, batch_sizes=(len(x),))
    if fast.backend != "native":
        raise RuntimeError(f"accelerate fell back to {fast.backend}")
    return lambda: fast.reconstruct(x)


def folded_eager(vae: VAE, x: Tensor, dtype: torch.dtype) -> Call:
    """fastvae's fallback: folded, in torch's operations, that is oneDNN."""
    return runtimes.eager(EagerVAE(vae, dtype).reconstruct, x)


def folded_compiled(vae: VAE, x: Tensor, _: torch.dtype) -> Call:
    """The folded modules by torch.compile with frozen weights."""
    return runtimes.compiled(_channels_last(_folded(vae)), _channels_last(x))


def folded_aot_inductor(vae: VAE, x: Tensor, _: torch.dtype) -> Call:
    """The folded modules as an AOTInductor package with frozen weights."""
    return runtimes.aot_inductor(_channels_last(_folded(vae)), _channels_last(x))


# How the names of those end that compute in bfloat16; all others compute in float32.
BF16 = " bf16"
ACCELERATE = f"{OURS} accelerate"
ACCELERATE_BF16 = ACCELERATE + BF16
# The best of these is what ours is compared with, each precision with its own kind.
_PEERS: dict[str, Build] = {
    "plain eager": plain_eager,
    "plain eager channels_last": plain_eager_channels_last,
    "plain compiled": plain_compiled,
    "plain onnxruntime": plain_onnxruntime,
    "exported file, onnxruntime": exported_onnxruntime,
    "plain OpenVINO": plain_openvino,
    "exported file, OpenVINO": exported_openvino,
    f"plain eager channels_last{BF16}": plain_eager_channels_last,
    f"plain compiled{BF16}": plain_compiled,
    f"plain OpenVINO{BF16}": plain_openvino,
    f"exported file, OpenVINO{BF16}": exported_openvino,
}
PEERS = tuple(_PEERS)
# The peers first, then ours, then other designs that fastvae could have chosen.
CONTENDERS: dict[str, Build] = _PEERS | {
    ACCELERATE: accelerated,
    ACCELERATE_BF16: accelerated,
    "folded eager": folded_eager,
    "folded compiled": folded_compiled,
    "folded AOTInductor": folded_aot_inductor,
}


def dtype_of(name: str) -> torch.dtype:
    """What the contender of this name computes in."""
    return torch.bfloat16 if name.endswith(BF16) else torch.float32


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
