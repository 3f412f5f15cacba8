"""The folded VAE in CUDA graphs: one launch per call for all layers."""

import logging
import threading
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from fastvae.inference.eager import scaled
from fastvae.inference.fold import FoldedDecoder, FoldedEncoder, FoldedReconstruction, pack
from fastvae.machine import compile_obstacle
from fastvae.models import VAE

_WARMUPS = 3
_logger = logging.getLogger("fastvae")

# A batch of inputs -> all results.
Verb = Callable[[Tensor], list[Tensor]]


class CapturedVAE:
    """The methods of `VAE` on a GPU, for checked images and z; computes in `dtype`, returns float32.

    Each method is captured for each batch size. Other batches are split into pieces of the largest size; the last piece
    is padded up to the next size.

    Args:
        vae: in eval mode; its weights are copied.
        dtype: of the convolutions and linear layers.
        batch_sizes: to capture, > 0.
        device: a CUDA device.
    """

    def __init__(self, vae: VAE, dtype: torch.dtype, batch_sizes: Sequence[int], device: torch.device):
        self.sizes = tuple(sorted(set(batch_sizes)))
        self._device, self._lock = device, threading.Lock()
        encoder, decoder = FoldedEncoder(vae, kernels=True), FoldedDecoder(vae, kernels=True)
        both = FoldedReconstruction(encoder, decoder)
        both.to(device, dtype, memory_format=torch.channels_last)
        pack(both)
        verbs: dict[str, Verb] = {
            "encode": lambda images: [y.float() for y in encoder(_image_layout(scaled(images, dtype)))],
            "decode": lambda z: [decoder(z.to(dtype)).float()],
            "reconstruct": lambda images: [both(_image_layout(scaled(images, dtype))).float()],
        }
        image = (3, vae.image_size, vae.image_size)
        inputs = {"encode": image, "decode": (vae.latent,), "reconstruct": image}
        # Recorded after each call: a graph's buffers are in use until that work is done, on whichever stream it runs.
        self._free = torch.cuda.Event()
        start = time.perf_counter()
        obstacle = compile_obstacle(device)
        self._graphs: dict[tuple[str, torch.dtype], dict[int, _Graph]] = {}
        # Each size of each method is compiled separately, which exceeds torch's default limit per function.
        unlimited = torch._dynamo.config.patch(recompile_limit=10_000, accumulated_recompile_limit=10_000)
        with torch.cuda.device(device), torch.no_grad(), unlimited:
            pool = torch.cuda.graph_pool_handle()
            for name, verb in verbs.items():
                for kind in (torch.float32,) if name == "decode" else (torch.float32, torch.uint8):
                    run = verb if obstacle else torch.compile(verb, dynamic=False)
                    self._graphs[name, kind] = {n: _Graph(run, (n, *inputs[name]), kind, pool) for n in self.sizes}
            self._free.record()
        _logger.info(
            "captured encode, decode and reconstruct for batches of %s on %s in %.1f s",
            ", ".join(map(str, self.sizes)),
            torch.cuda.get_device_name(device),
            time.perf_counter() - start,
        )

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """[B, 3, H, W], float32 in [-1, 1] or uint8 -> mean and log-variance [B, latent]."""
        mean, log_variance = self._run("encode", images)
        return mean, log_variance

    def decode(self, z: Tensor) -> Tensor:
        """[B, latent] float32 -> [B, 3, H, W] in [-1, 1]."""
        return self._run("decode", z)[0]

    def reconstruct(self, images: Tensor) -> Tensor:
        """[B, 3, H, W], float32 in [-1, 1] or uint8 -> [B, 3, H, W] in [-1, 1]."""
        return self._run("reconstruct", images)[0]

    def _run(self, verb: str, x: Tensor) -> list[Tensor]:
        graphs = self._graphs[verb, x.dtype]
        with self._lock, torch.cuda.device(self._device), torch.no_grad():
            stream = torch.cuda.current_stream()
            stream.wait_event(self._free)
            try:
                pieces = [graphs[size](piece) for size, piece in split(x, self.sizes)]
            finally:
                self._free.record(stream)
        return pieces[0] if len(pieces) == 1 else [torch.cat(results) for results in zip(*pieces, strict=True)]


def split(x: Tensor, sizes: Sequence[int]) -> list[tuple[int, Tensor]]:
    """Splits a batch into one or more pieces, each with the smallest of the ascending sizes that holds it."""
    pieces = x.split(sizes[-1]) if len(x) else [x]
    return [(next(size for size in sizes if size >= len(piece)), piece) for piece in pieces]


class _Graph:
    """One method for one batch size, with its input and output buffers."""

    def __init__(self, verb: Verb, shape: tuple[int, ...], dtype: torch.dtype, pool: tuple[int, int]):
        self._verb = verb  # its kernels must stay loaded
        x = torch.zeros(shape, dtype=dtype, device="cuda")
        self._input = _image_layout(x) if x.dim() == 4 else x
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(_WARMUPS):
                verb(self._input)
        torch.cuda.current_stream().wait_stream(stream)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, pool=pool):
            self._results = verb(self._input)

    def __call__(self, x: Tensor) -> list[Tensor]:
        self._input[: len(x)].copy_(x, non_blocking=True)
        self._graph.replay()
        return [y[: len(x)].clone() for y in self._results]


def _image_layout(images: Tensor) -> Tensor:
    return images.contiguous(memory_format=torch.channels_last)
