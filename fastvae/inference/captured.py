"""The folded VAE in CUDA graphs: one launch per call for all layers."""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor

from fastvae.errors import FastvaeError
from fastvae.exact_float32 import exact_float32
from fastvae.inference.eager import scaled
from fastvae.inference.fold import FoldedDecoder, FoldedEncoder, FoldedReconstruction, pack
from fastvae.kernels.dispatch import map_format, provider
from fastvae.kernels.layout import ALIGNED_CHANNELS, with_channels
from fastvae.machine import compile_obstacle, unlimited_compilations
from fastvae.models import VAE

_WARMUPS = 3
_logger = logging.getLogger("fastvae")
# Only one capture may be underway in a process, and the compiler's settings are the process's.
_capturing = threading.Lock()

# A batch of inputs -> all results.
Verb = Callable[[Tensor], list[Tensor]]


class CapturedVAE:
    """The methods of `VAE` on a GPU, for checked images and z; computes in `dtype`, returns float32.

    Each method is captured for each batch size and for floats and 8-bit pixels, when it is first called with them.
    Other batches are split into pieces of the largest size; the last piece is padded up to the next size.

    float32 is computed without TF32, whatever torch's settings are: these are the caller's, who may change them between
    the first call and the next.

    Args:
        vae: in eval mode; its weights are copied.
        dtype: of the convolutions and linear layers.
        batch_sizes: to capture, > 0.
        device: a CUDA device.
    """

    def __init__(self, vae: VAE, dtype: torch.dtype, batch_sizes: Sequence[int], device: torch.device):
        self.sizes = tuple(sorted(set(batch_sizes)))
        self._device, self._dtype, self._lock = device, dtype, threading.Lock()
        self._obstacle = compile_obstacle(device)
        self._image_size, self._latent = vae.image_size, vae.latent
        self._graphs: dict[tuple[str, torch.dtype, int], _Graph] = {}
        self._pool = torch.cuda.graph_pool_handle()
        # Recorded after the weights are made and after each call: until that work is done, on whichever stream it runs,
        # weights are not there and a graph's buffers are in use.
        self._free = torch.cuda.Event()
        with torch.cuda.device(device), torch.inference_mode(False), torch.no_grad():
            self._verbs = _verbs(vae, dtype, device)
            self._free.record(torch.cuda.current_stream())

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """[B, 3, H, W], float32 in [-1, 1] or uint8 -> mean and log-variance [B, latent].

        Raises:
            FastvaeError: this method cannot be captured; other methods and sizes are not affected.
        """
        mean, log_variance = self._run("encode", images)
        return mean, log_variance

    def decode(self, z: Tensor) -> Tensor:
        """[B, latent] float32 -> [B, 3, H, W] in [-1, 1].

        Raises:
            FastvaeError: as `encode`.
        """
        return self._run("decode", z)[0]

    def reconstruct(self, images: Tensor) -> Tensor:
        """[B, 3, H, W], float32 in [-1, 1] or uint8 -> [B, 3, H, W] in [-1, 1].

        Raises:
            FastvaeError: as `encode`.
        """
        return self._run("reconstruct", images)[0]

    def _run(self, verb: str, x: Tensor) -> list[Tensor]:
        if torch.cuda.is_current_stream_capturing():
            raise FastvaeError(
                "an accelerated VAE replays CUDA graphs of its own, which cannot be part of another capture; "
                "expected a call outside of it, or a call of the VAE that it was made from"
            )
        with self._lock, torch.cuda.device(self._device), torch.no_grad():
            stream = torch.cuda.current_stream()
            stream.wait_event(self._free)
            try:
                pieces = [self._graph(verb, x.dtype, size)(piece) for size, piece in split(x, self.sizes)]
            finally:
                self._free.record(stream)
        return pieces[0] if len(pieces) == 1 else [torch.cat(results) for results in zip(*pieces, strict=True)]

    def _graph(self, verb: str, kind: torch.dtype, size: int) -> "_Graph":
        key = verb, kind, size
        if key not in self._graphs:
            what = f"{verb} for batches of {size}" + (" in 8 bits" if kind == torch.uint8 else "")
            start = time.perf_counter()
            try:
                with _capturing, _as_if_alone():
                    # Each size of each method is compiled separately.
                    run = self._verbs[verb] if self._obstacle else torch.compile(self._verbs[verb], dynamic=False)
                    self._graphs[key] = _Graph(run, self._input(verb, kind, size), self._pool)
            except Exception as error:  # the compiler raises errors of any class
                self._pool = torch.cuda.graph_pool_handle()  # the failed capture may have left its own in any state
                reason = f"{type(error).__name__}: {' '.join(str(error).strip().splitlines()[:1])}"
                raise FastvaeError(
                    f"{what} could not be captured on {self._device} ({reason}): give accelerate other batch_sizes or "
                    "another dtype, or use the plain module"
                ) from error
            name = torch.cuda.get_device_name(self._device)
            _logger.info("captured %s on %s in %.1f s", what, name, time.perf_counter() - start)
        return self._graphs[key]

    def _input(self, verb: str, kind: torch.dtype, size: int) -> Tensor:
        """A graph's input. 8-bit pixels are scaled within the graph; the copy into it converts everything else."""
        if verb == "decode":
            return torch.zeros(size, self._latent, dtype=self._dtype, device=self._device)
        x = torch.zeros(size, 3, self._image_size, self._image_size, dtype=kind, device=self._device)
        return x.contiguous(memory_format=map_format(x.device)) if kind == torch.uint8 else _aligned(x.to(self._dtype))


def _verbs(vae: VAE, dtype: torch.dtype, device: torch.device) -> dict[str, Verb]:
    """The methods by name, for inputs as `CapturedVAE._input` makes them."""
    # Without them ATen would sum the taps of the upsampling convolutions in every call, which folding does once.
    kernels = provider("replicate_conv2d", torch.empty(0, dtype=dtype, device=device)) == "triton"
    encoder, decoder = FoldedEncoder(vae, kernels=kernels), FoldedDecoder(vae, kernels=kernels)
    both = FoldedReconstruction(encoder, decoder)
    both.to(device, dtype, memory_format=map_format(device))
    pack(both)
    first = encoder.stages[0].conv
    first.weight = _aligned(first.weight)
    # Mean and log-variance are one matrix product.
    heads = [torch.cat([getattr(head, name) for head in (encoder.mean, encoder.log_variance)]) for name in _LINEAR]

    def given(images: Tensor) -> Tensor:
        return _aligned(scaled(images, dtype)) if images.dtype == torch.uint8 else images

    def encode(images: Tensor) -> list[Tensor]:
        features = torch.flatten(encoder.stages(given(images)), 1)
        return list(F.linear(features, *heads).float().chunk(2, dim=1))

    return {
        "encode": encode,
        "decode": lambda z: [decoder(z).float()],
        "reconstruct": lambda images: [both(given(images)).float()],
    }


_LINEAR = ("weight", "bias")


def _aligned(x: Tensor) -> Tensor:
    """[N, 3, H, W] in the device's layout, in half precision with zeros up to eight channels."""
    x = x if x.dtype == torch.float32 else with_channels(x, ALIGNED_CHANNELS)
    return x.contiguous(memory_format=map_format(x.device))


@contextmanager
def _as_if_alone() -> Iterator[None]:
    """The same graph, whatever surrounds the call that captures it: the caller's modes are not those of later calls."""
    with (
        torch.inference_mode(False),  # or the graph's input could not be written to outside of inference mode
        torch.no_grad(),
        torch.autocast("cuda", enabled=False),
        exact_float32(),
        _fastest_convolutions(),
        unlimited_compilations(),
    ):
        yield


@contextmanager
def _fastest_convolutions() -> Iterator[None]:
    """cuDNN searches for its fastest kernels: a graph is captured once and runs often."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = True
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


def split(x: Tensor, sizes: Sequence[int]) -> list[tuple[int, Tensor]]:
    """Splits a batch into one or more pieces, each with the smallest of the ascending sizes that holds it."""
    pieces = x.split(sizes[-1]) if len(x) else [x]
    return [(next(size for size in sizes if size >= len(piece)), piece) for piece in pieces]


class _Graph:
    """One method for one batch size and kind of input.

    Args:
        verb: what it computes.
        buffer: its input, with zeros in the channels that no batch has.
        pool: of the memory that all graphs of a `CapturedVAE` share, since they never run at once.
    """

    def __init__(self, verb: Verb, buffer: Tensor, pool: tuple[int, int]):
        self._verb, self._input = verb, buffer  # the verb's kernels must stay loaded
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(_WARMUPS):
                verb(buffer)
        torch.cuda.current_stream().wait_stream(stream)
        self._graph = torch.cuda.CUDAGraph()
        # thread_local: other threads may make calls that are illegal during a capture. A failed capture leaves its own
        # stream current; the outer block restores this one.
        with (
            torch.cuda.stream(torch.cuda.current_stream()),
            torch.cuda.graph(self._graph, pool=pool, capture_error_mode="thread_local"),
        ):
            self._results = verb(buffer)

    def __call__(self, x: Tensor) -> list[Tensor]:
        self._input[: len(x), : x.shape[1]].copy_(x, non_blocking=True)
        self._graph.replay()
        return [y[: len(x)].clone() for y in self._results]
