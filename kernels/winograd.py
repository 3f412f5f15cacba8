"""Convolutions on CPUs by Winograd's algorithm, in C++ (`kernels/native`): 3x3 at stride 1, 4x4 at stride 2, both with
a border of one pixel: zeros, or at stride 1 also copies of the nearest pixels, as by replication padding.

    Y = A^T [(G g G^T) * (B^T d B)] A                   results of a tile, from its inputs d and a filter g
    dL/dd = B [(G g G^T) * (A dL/dY A^T)] B^T           summed where inputs overlap
    dL/dg = G^T sum[(A dL/dY A^T) * (B^T d B)] G        over all tiles

A tile of 4x4 results of a 3x3 filter takes 36 products for each pair of channels instead of 144, and maps that 2x2
tiles cover with fewer products get those. Stride 2 is reduced to 2x2 filters of stride 1 with four times the channels,
and takes 100 products instead of 256. Whoever calls transforms the filters, and may keep them.

Arithmetic is in float32, also for bfloat16 maps. Against float64 the norm of the error is, in float32 on the loss
network's shapes with random operands, 0.6e-6 to 0.9e-6 of the result's with 4x4 tiles, where torch's convolution has
0.3e-6 to 0.8e-6, and the largest error 1e-6 to 2.2e-6 of the largest value (0.6e-6 to 1.9e-6); with few channels it is
up to three times torch's, and 1e-5 is never exceeded in tests. Filters' gradients, sums over many tiles, are closer
than torch's where the batch is large: 0.7e-6 to 1.5e-6 (0.7e-6 to 6.4e-6) on the critic's shapes with 64 images. In
bfloat16 the error is torch's: the rounding of the result. NaN stays NaN, and the whole tile of an infinity becomes NaN.
Each sum has one order, whatever the number of threads, and maps do not depend on the other images of a batch: they are
the same to the bit.

Source: Lavin and Gray 2016, arXiv:1509.09308, section 4.
"""

import contextlib
import ctypes
import logging
from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from fastvae import native_library
from fastvae.errors import FastvaeError

from .filter_transform import filter_transform
from .layout import channels_last

# Of a call or a few in a row, in float32, relative to the largest value or in the norm.
STATED_ERROR = 1e-5

# Channels must fill the widest vectors, one of inputs and two of outputs.
CHANNELS = 32
# Pixels of a batch of results. With fewer, transforming the filters costs more than it saves: at 256 channels some 3 ms
# for each direction, as much as 260 pixels save (one AVX2 core).
FEWEST_PIXELS = 512
# Numbers of elements and of tiles are `int` in C++.
LARGEST = 2**31 - 1
# Tiles that share one reading of the filters, for each so many input channels: their transformed inputs stay in the
# second-level cache, and filters that do not fit into it are read less often.
_TILES, _TILES_CHANNELS = 12, 128
# Tiles whose products are summed before the sums go back to memory: 32 and 64 were faster than 128 and 256.
_TILES_OF_SUMS = 48
# What C++ reads and writes, whatever torch's defaults are.
_FLOAT32 = {"dtype": torch.float32, "device": "cpu"}

_HERE = Path(__file__).parent / "native"
_HEADERS = tuple(
    _HERE / f"{name}.h"
    for name in (
        *("convolution", "data_gradient", "weight_gradient", "geometry", "matrix_products", "small_product"),
        *("gradient_tile", "for_each", "transforms", "products", "lanes"),
    )
)
_logger = logging.getLogger("fastvae")


@cache
def is_available() -> bool:
    """Whether the C++ code can run here; compiles it at the first call on a machine, which takes some ten seconds."""
    try:
        _library()
        _parallel()
    except FastvaeError as error:
        _logger.info("convolutions on the CPU are torch's, without the faster ones in C++: %s", error)
        return False
    return True


def tile_for(height: int, width: int, stride: int = 1) -> int:
    """The tile size with fewer products for results of this size, 2 or 4; the larger one reads less memory."""
    return min((4, 2) if stride == 1 else (4,), key=lambda tile: _products(height, width, stride, tile))


def gains(batch: int, inputs: int, outputs: int, height: int, width: int, stride: int = 1) -> bool:
    """Whether the C++ code computes results of this size, and fast even if it transforms the filters for each."""
    taps = 9 if stride == 1 else 16
    return (
        inputs % CHANNELS == outputs % CHANNELS == 0
        and batch * height * width >= FEWEST_PIXELS
        and batch * height * width * max(inputs * stride**2, outputs) <= LARGEST
        and _products(height, width, stride, tile_for(height, width, stride)) < height * width * taps
    )


def _products(height: int, width: int, stride: int, tile: int) -> int:
    return -(-height // tile) * -(-width // tile) * (tile + _taps(stride) - 1) ** 2 * stride**2


def _taps(stride: int) -> int:
    """Of a filter along one axis, in its form of stride 1."""
    return 3 if stride == 1 else 2


def convolve(
    x: Tensor,
    filters: Tensor,
    outputs: int,
    tile: int,
    *,
    stride: int = 1,
    copies: bool = False,
    mask: Tensor | None = None,
    bias: Tensor | None = None,
) -> Tensor:
    """The convolution of x, whose values count where `mask` is above zero or NaN; with a bias ReLU follows.

    Args:
        x: [B, C, stride H, stride W], float32; bfloat16 at stride 1 with a border of zeros.
        filters: `transformed`, for as many outputs and this tile.
        outputs: channels of the result.
        tile: by `tile_for(H, W, stride)`.
        stride: 1 for filters of 3x3, 2 for 4x4.
        copies: whether the border is copies of the nearest pixels; at stride 1.
        mask: None, or like x.
        bias: None, or float32 [outputs].

    Returns:
        [B, outputs, H, W] of x's dtype in channels_last.
    """
    x, mask = channels_last(x), None if mask is None else channels_last(mask)
    b, inputs, h, w = x.shape
    h, w = h // stride, w // stride
    out = torch.empty(b, outputs, h, w, dtype=x.dtype, device="cpu", memory_format=torch.channels_last)
    failed = _library().fastvae_convolution(
        x.data_ptr(),
        None if mask is None else mask.data_ptr(),
        filters.data_ptr(),
        None if bias is None else bias.data_ptr(),
        out.data_ptr(),
        *(b, h, w, inputs, outputs, stride, tile, copies, x.dtype == torch.bfloat16),
        _tiles_at_a_time(inputs * stride**2),
        *_threads(),
    )
    _check_memory(failed)
    return out


def data_gradient(grad: Tensor, weight: Tensor, tile: int, *, stride: int = 1, copies: bool = False) -> Tensor:
    """The gradient of the convolution's input.

    Args:
        grad: [B, O, H, W], float32, the gradient of its result.
        weight: [O, C, 3, 3], or [O, C, 4, 4] at stride 2, float32.
        tile, stride, copies: as of `convolve`.

    Returns:
        float32 [B, C, stride H, stride W] in channels_last.
    """
    inputs = weight.shape[1]
    if stride == 1 and not copies:
        return convolve(grad, transformed(weight, tile, backward=True), inputs, tile)
    # At stride 1 those are for a convolution, flipped.
    filters = transformed(weight if stride == 2 else weight.flip(2, 3), tile, backward=True)
    grad = channels_last(grad)
    b, outputs, h, w = grad.shape
    size = b, inputs, stride * h, stride * w
    out = torch.empty(size, **_FLOAT32, memory_format=torch.channels_last)
    failed = _library().fastvae_data_gradient(
        *(t.data_ptr() for t in (grad, filters, out)),
        *(b, h, w, inputs, outputs, stride, tile),
        _tiles_at_a_time(outputs),
        *_threads(),
    )
    _check_memory(failed)
    return out


def weight_gradient(
    x: Tensor, grad: Tensor, weight: Tensor, tile: int, *, stride: int = 1, copies: bool = False
) -> Tensor:
    """The gradient of the filters, summed over the batch.

    Args:
        x: [B, C, stride H, stride W], float32.
        grad: [B, O, H, W], float32, the gradient of the convolution's result.
        weight: [O, C, 3, 3], or [O, C, 4, 4] at stride 2; only its shape and layout matter.
        tile, stride, copies: as of `convolve`.

    Returns:
        A tensor like the weight.
    """
    x, grad = channels_last(x), channels_last(grad)
    inputs, (b, outputs, h, w) = x.shape[1], grad.shape
    g = _filter_transform_2d(tile, _taps(stride))
    sums = torch.empty(1, len(g), outputs * inputs * stride**2, **_FLOAT32)
    failed = _library().fastvae_weight_gradient(
        *(t.data_ptr() for t in (x, grad, sums)),
        *(b, h, w, inputs, outputs, stride, tile, copies, _TILES_OF_SUMS),
        *_threads(),
    )
    _check_memory(failed)
    taps, out = _product(g.T.contiguous(), sums), torch.empty_like(weight)
    if stride == 1:
        return out.copy_(taps.view(3, 3, outputs, inputs).permute(2, 3, 0, 1))
    by_place = taps.view(2, 2, outputs, 2, 2, inputs)
    _by_place(out).copy_(by_place.permute(2, 5, 0, 3, 1, 4))
    return out


def transformed(weight: Tensor, tile: int, backward: bool) -> Tensor:
    """G g G^T of each filter g, as the C++ code reads it: [blocks of n outputs, points, inputs, n], zeros at the end.

    Args:
        weight: [O, C, 3, 3], or [O, C, 4, 4] for stride 2.
        tile: 2 or 4.
        backward: whether for the gradient of the inputs, which has C outputs.

    Returns:
        float32, computed in float64.
    """
    n, weight = _library().fastvae_outputs_at_a_time(), weight.float()
    if weight.shape[-1] == 4:
        weight = _by_place(weight)
        if backward:  # outputs are p, q and C, inputs O
            taps = weight.unflatten(1, (-1, n)).permute(4, 6, 1, 3, 5, 0, 2).reshape(-1, 4, len(weight) * n)
        else:  # inputs are p, q and C
            taps = weight.unflatten(0, (-1, n)).permute(0, 3, 5, 4, 6, 2, 1).reshape(len(weight) // n, 4, -1)
        return _product(_filter_transform_2d(tile, taps=2), taps)
    weight = weight.flip(2, 3).transpose(0, 1) if backward else weight
    weight = F.pad(weight, (*[0] * 6, 0, -len(weight) % n))
    taps = weight.unflatten(0, (-1, n)).permute(0, 3, 4, 2, 1).reshape(len(weight) // n, 9, -1)
    return _product(_filter_transform_2d(tile, taps=3), taps)


def _by_place(weight: Tensor) -> Tensor:
    """4x4 filters [O, C, 2u + p, 2v + q] as [O, C, u, p, v, q]: 2x2 filters for each place in a block of 2x2 pixels."""
    return weight.unflatten(3, (2, 2)).unflatten(2, (2, 2))


def _product(matrix: Tensor, x: Tensor) -> Tensor:
    """matrix @ x for float64 [R, K] and float32 [B, K, N]: float32 [B, R, N], in float64 and in one order."""
    x = x.contiguous()
    (rows, inner), (blocks, _, columns) = matrix.shape, x.shape
    out = torch.empty(blocks, rows, columns, **_FLOAT32)
    pointers = matrix.data_ptr(), x.data_ptr(), out.data_ptr()
    _library().fastvae_small_product(*pointers, blocks, rows, inner, columns, *_threads())
    return out


@cache
def _filter_transform_2d(tile: int, taps: int) -> Tensor:
    """G of both axes, float64: a filter's taps -> its points."""
    g = filter_transform(tile, taps)
    return torch.kron(g, g).contiguous()


def _tiles_at_a_time(channels: int) -> int:
    return _TILES * max(channels // _TILES_CHANNELS, 1)


def _threads() -> tuple[int, int]:
    return _parallel(), torch.get_num_threads()


def _check_memory(failed: int) -> None:
    if failed:
        raise torch.OutOfMemoryError("a convolution has no memory for the transformed inputs of a few tiles")


@cache
def _library() -> ctypes.CDLL:
    return native_library.library(SOURCES)


@cache
def _parallel() -> int:
    """The address of GOMP_parallel in the OpenMP library that torch runs in.

    Threads of our own beside torch's would take its processors: both wait busily for work.

    Raises:
        FastvaeError: torch has another way to run threads.
    """
    for name in ("libtorch_cpu.so", "libtorch_cpu.dylib"):
        path = Path(torch.__file__).parent / "lib" / name
        # Looked up in torch's own library and what it was linked with: a process may hold several OpenMP libraries.
        with contextlib.suppress(OSError, AttributeError):
            return ctypes.cast(ctypes.CDLL(str(path)).GOMP_parallel, ctypes.c_void_p).value
    raise FastvaeError("torch's OpenMP library has no function GOMP_parallel")


def _signatures() -> dict[str, tuple[type | None, list[type]]]:
    number, pointer = ctypes.c_int, ctypes.c_void_p
    threads = [pointer, number]
    return {
        "fastvae_outputs_at_a_time": (number, []),
        "fastvae_convolution": (number, [*[pointer] * 5, *[number] * 10, *threads]),
        "fastvae_data_gradient": (number, [*[pointer] * 3, *[number] * 8, *threads]),
        "fastvae_weight_gradient": (number, [*[pointer] * 3, *[number] * 9, *threads]),
        "fastvae_small_product": (None, [*[pointer] * 3, *[number] * 4, *threads]),
    }


SOURCES = native_library.Sources("convolutions", _HERE / "winograd.cpp", _HEADERS, (), _signatures)
