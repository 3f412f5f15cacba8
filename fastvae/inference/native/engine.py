"""The Python interface of the engine: builds a network layer by layer and runs it."""

import ctypes
import os
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import torch
from torch import Tensor

from fastvae.errors import FastvaeError
from fastvae.inference.native.library import library
from fastvae.kernels.filter_transform import filter_transform


class Form(IntEnum):
    """A way to compute a convolution with fewer products than its definition has; see `winograd.h`."""

    CONV3X3_TILE2 = 0
    CONV3X3_TILE4 = 1
    UPSAMPLING = 2
    DOWNSAMPLING = 3


# Filter transforms along one axis, as [places][phases][taps]; see `winograd.h`.
_UPSAMPLING = [[[1, 1, 1]], [[1, 0, 0]], [[0, 0, 1]]]
_DOWNSAMPLING = [[[1, 0, 1, 0], [0, 1, 0, 1]], [[1, 0, 0, 0], [0, 1, 0, 0]], [[0, 0, 1, 0], [0, 0, 0, 1]]]
# Width of a tile of outputs.
TILE = {Form.CONV3X3_TILE2: 2, Form.CONV3X3_TILE4: 4, Form.UPSAMPLING: 2, Form.DOWNSAMPLING: 2}


class Activation(IntEnum):
    """Activation applied to a layer's result."""

    NONE = 0
    LEAKY_RELU = 1
    RELU = 2


@dataclass(frozen=True)
class Map:
    """A feature map in the engine: [B, height, width, channels] with a border of one pixel."""

    index: int
    height: int
    width: int
    channels: int


@dataclass(frozen=True)
class Layer:
    """A layer in the engine, and its cost per image.

    Attributes:
        flops: multiplications and additions that are done; with Winograd's algorithm fewer than the definition has.
        filter_bytes: of its filters, read once for up to `images_at_a_time` images.
        map_bytes: of the maps that it reads and writes.
    """

    index: int
    name: str
    flops: int
    filter_bytes: int
    map_bytes: int


class Engine:
    """A network on feature maps, and the threads that run it.

    Runs may be started from any thread; they take turns, and release the GIL.

    Args:
        threads: number of threads, including the caller's.
        images_at_a_time: larger batches are split into pieces of this size, whose maps fit into the processor's caches.
        dtype: of filters and maps, float32 or bfloat16; sums are float32. Products of bfloat16 numbers take the
            processor's instruction for that, if it has one (AVX512-BF16), and otherwise float32 arithmetic.
        flags: extra compiler flags, for tests.

    Raises:
        FastvaeError: the engine cannot be compiled here, or the system refuses the threads.
    """

    def __init__(
        self,
        threads: int,
        images_at_a_time: int,
        dtype: torch.dtype = torch.float32,
        flags: tuple[str, ...] = (),
    ):
        self._library = library((*flags, "-DFASTVAE_BFLOAT16") if dtype == torch.bfloat16 else flags)
        self._itemsize = dtype.itemsize
        self._engine, self._process = self._library.fastvae_new(threads, images_at_a_time), os.getpid()
        if not self._engine:
            raise FastvaeError(f"the system refuses {threads} threads, or memory for them")

    def __del__(self):
        # Not in a forked process, where the threads that it would wait for do not exist.
        if getattr(self, "_engine", None) and os.getpid() == self._process:
            self._library.fastvae_delete(self._engine)

    def add_map(self, height: int, width: int, channels: int, *, replicate: bool = False) -> Map:
        """Adds a map whose border is zero or, with `replicate`, repeats the outermost pixels."""
        index = _done(self._library.fastvae_map(self._engine, height, width, channels, replicate))
        return Map(index, height, width, channels)

    def add_direct(
        self,
        name: str,
        source: Map,
        to: Map,
        filters: Sequence[tuple[Tensor, Tensor, tuple[int, int], tuple[int, int]]],
        *,
        positions: tuple[int, int],
        stride: int = 1,
        step: int = 1,
        residual: Map | None = None,
        activation: Activation = Activation.NONE,
        slope: float = 0.0,
    ) -> Layer:
        """Adds convolutions that are computed directly, as they are defined.

        Args:
            name: human-readable.
            source, to: input and output map.
            filters: for each filter its weight [O, kh, kw, C], its bias [O], the position of its first window in
                `source` (-1 is the border) and the position of its first result in `to`.
            positions: number of windows in each direction, `stride` apart in `source`; the results are `step` apart in
                `to`.
            residual: a map of the shape of `to` that is added before the activation.
            activation, slope: applied to the results.

        Returns:
            The layer, for `run`.
        """
        outputs, rows, columns, _ = filters[0][0].shape
        shape = (rows, columns, stride, *positions, step, outputs, activation, slope)
        layer = _done(self._library.fastvae_direct(self._engine, source.index, to.index, _index(residual), *shape))
        for weight, bias, start, target in filters:
            w, b = _floats(weight), _floats(bias)
            _done(self._library.fastvae_filters(self._engine, layer, w.data_ptr(), b.data_ptr(), *start, *target))
        used = len(filters) * filters[0][0].numel()
        flops = 2 * used * positions[0] * positions[1]
        return Layer(layer, name, flops, self._itemsize * used, self._bytes(source, to, residual))

    def add_winograd(
        self,
        name: str,
        source: Map,
        to: Map,
        weight: Tensor,
        bias: Tensor,
        *,
        form: Form,
        residual: Map | None = None,
        activation: Activation = Activation.NONE,
        slope: float = 0.0,
    ) -> Layer:
        """Adds a convolution with fewer products than its definition has; see `takes_winograd`.

        Args:
            weight: [O, 3, 3, C], or [O, 4, 4, C] for DOWNSAMPLING.
            form: CONV3X3_TILE2 is F(2x2, 3x3) and CONV3X3_TILE4 F(4x4, 3x3), both of stride 1; UPSAMPLING is 3x3 after
                nearest x2 upsampling, where `source` replicates its border; DOWNSAMPLING is 4x4 of stride 2.
        """
        g = _transform(form)
        transformed = torch.einsum("ypa,xqb,oabc->yxopqc", g, g, weight.to("cpu", torch.float64))
        w, b = _floats(transformed), _floats(bias)
        maps = (source.index, to.index, _index(residual))
        shape = (w.data_ptr(), b.data_ptr(), activation, slope)
        layer = _done(self._library.fastvae_winograd(self._engine, *maps, form, *shape))
        tiles = to.height // TILE[form] * (to.width // TILE[form])
        moved = self._bytes(source, to, residual)
        return Layer(layer, name, 2 * w.numel() * tiles, self._itemsize * w.numel(), moved)

    def takes_winograd(self, source: Map, to: Map, form: Form) -> bool:
        """Whether `add_winograd` supports these maps: sizes divisible by the tile, channels that fill vectors."""
        lanes, tile = self._library.fastvae_lanes(), TILE[form]
        return not (to.height % tile or to.width % tile or source.channels % lanes or to.channels % (2 * lanes))

    def add_to_image(self, name: str, source: Map, weight: Tensor, bias: Tensor) -> Layer:
        """Adds the last layer: weight [2, 2, colours, 2, 2, C], one filter for each output parity, then tanh."""
        w, b = _floats(weight), _floats(bias.repeat(4))
        colours, windows = weight.shape[2], (source.height + 1) * (source.width + 1)
        layer = _done(self._library.fastvae_to_image(self._engine, source.index, colours, w.data_ptr(), b.data_ptr()))
        image_bytes = 4 * colours * 4 * source.height * source.width
        moved = self._bytes(source) + image_bytes
        return Layer(layer, name, 2 * w.numel() * windows, self._itemsize * w.numel(), moved)

    def run(
        self,
        layers: Sequence[Layer],
        source: Map,
        x: Tensor,
        *,
        images: Tensor | None = None,
        vectors: Sequence[tuple[Map, Tensor]] = (),
        seconds: Tensor | None = None,
    ) -> None:
        """Runs layers, one after the other.

        Args:
            layers: as returned by the methods above.
            source: the map that x is read into; its border is zero.
            x: [B, channels, height, width] of `source`, any strides, no lazily negated view; float32, or uint8 whose
                0..255 become -1..1.
            images: contiguous float32, the output of a last layer by `add_to_image`.
            vectors: maps of one pixel, and tensors for their values, contiguous float32 [B, channels].
            seconds: float64 [1 + layers], to which the times of reading x and of each layer are added.
        """
        chosen, strides = (
            (ctypes.c_int * len(layers))(*(layer.index for layer in layers)),
            (ctypes.c_int64 * 4)(*x.stride()),
        )
        results = (ctypes.c_int * len(vectors))(*(m.index for m, _ in vectors))
        pointers = (ctypes.c_void_p * len(vectors))(*(v.data_ptr() for _, v in vectors))
        failed = self._library.fastvae_run(
            self._engine,
            chosen,
            len(layers),
            source.index,
            x.data_ptr(),
            strides,
            x.dtype == torch.uint8,
            len(x),
            None if images is None else images.data_ptr(),
            results,
            pointers,
            len(vectors),
            None if seconds is None else seconds.data_ptr(),
        )
        _done(failed)

    def _bytes(self, *maps: Map | None) -> int:
        return sum(self._itemsize * m.height * m.width * m.channels for m in maps if m is not None)


def _transform(form: Form) -> Tensor:
    """G along one axis, float64 [places, phases, taps]."""
    match form:
        case Form.UPSAMPLING:
            return torch.tensor(_UPSAMPLING, dtype=torch.float64, device="cpu")
        case Form.DOWNSAMPLING:
            return torch.tensor(_DOWNSAMPLING, dtype=torch.float64, device="cpu")
        case _:
            return filter_transform(TILE[form])[:, None]


def _done(result: int) -> int:
    if result < 0:
        raise MemoryError("no memory for the engine's filters and maps")
    return result


def _index(optional: Map | None) -> int:
    return -1 if optional is None else optional.index


def _floats(values: Tensor) -> Tensor:
    """Contiguous float32 on the CPU, with lazy negation resolved, since the engine reads memory."""
    return values.to("cpu", torch.float32).resolve_neg().contiguous()
