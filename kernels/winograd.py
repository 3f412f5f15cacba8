"""3x3 convolutions on CPUs by Winograd's algorithm, in C++ (`kernels/native`): stride 1, zero padding 1.

    Y = A^T [(G g G^T) * (B^T d B)] A                   results of a tile, from its inputs d and a filter g
    dL/dd                                               the same with channels exchanged and taps in reverse order
    dL/dg = G^T sum[(A dL/dY A^T) * (B^T d B)] G        over all tiles

A tile of 4x4 results takes 36 products for each pair of channels instead of 144, and maps that 2x2 tiles cover with
fewer products get those. Whoever calls transforms the filters, and may keep them.

Arithmetic is in float32, also for bfloat16 maps. Against float64 the norm of the error is, in float32 on the loss
network's shapes with random operands, 0.6e-6 to 0.9e-6 of the result's with 4x4 tiles, where torch's convolution has
0.3e-6 to 0.8e-6, and the largest error 1e-6 to 2.2e-6 of the largest value (0.6e-6 to 1.9e-6); 1e-5 is never exceeded
in tests. Filters' gradients, sums over many tiles, are closer than torch's: 0.7e-6 to 1.5e-6 (0.7e-6 to 6.4e-6) on the
critic's shapes. In bfloat16 the error is torch's: the rounding of the result. NaN stays NaN, and the whole tile of an
infinity becomes NaN. Each sum has one order, whatever the number of threads, and results do not depend on the rest of
the batch: they are the same to the bit.

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
# Tensors' sizes are `int` in C++.
LARGEST = 2**31 - 1
# Tiles that share one reading of the filters, for each so many input channels: their transformed inputs stay in the
# second-level cache, and filters that do not fit into it are read less often.
_TILES, _TILES_CHANNELS = 12, 128
# Tiles whose products are summed before the sums go back to memory: of 32, 64, 128 and 256 the fastest for most shapes.
_TILES_OF_SUMS = 48

_HERE = Path(__file__).parent / "native"
_HEADERS = tuple(
    _HERE / f"{name}.h"
    for name in ("conv3x3", "weight_gradient", "small_product", "for_each", "transforms", "products", "lanes")
)
_logger = logging.getLogger("fastvae")


@cache
def is_available() -> bool:
    """Whether the C++ code can run here; compiles it at the first call on a machine, which takes some ten seconds."""
    try:
        _library()
        _parallel()
    except FastvaeError as error:
        _logger.info("3x3 convolutions on the CPU are torch's, without the faster ones in C++: %s", error)
        return False
    return True


def tile_for(height: int, width: int) -> int:
    """The tile size with fewer products, 2 or 4; the larger one reads less memory."""
    products = {tile: -(-height // tile) * -(-width // tile) * (tile + 2) ** 2 for tile in (4, 2)}
    return min(products, key=products.__getitem__)


def convolve(
    x: Tensor, filters: Tensor, outputs: int, tile: int, *, mask: Tensor | None, bias: Tensor | None
) -> Tensor:
    """The convolution of x, whose values count where `mask` is above zero or NaN; with a bias ReLU follows.

    Args:
        x: [B, C, H, W], float32 or bfloat16.
        filters: `transformed`, for as many outputs and this tile.
        outputs: channels of the result.
        tile: by `tile_for(H, W)`.
        mask: None, or like x.
        bias: None, or float32 [outputs].

    Returns:
        [B, outputs, H, W] of x's dtype in channels_last.
    """
    x, mask = channels_last(x), None if mask is None else channels_last(mask)
    b, inputs, h, w = x.shape
    out = torch.empty(b, outputs, h, w, dtype=x.dtype, memory_format=torch.channels_last)
    failed = _library().fastvae_conv3x3(
        x.data_ptr(),
        None if mask is None else mask.data_ptr(),
        filters.data_ptr(),
        None if bias is None else bias.data_ptr(),
        out.data_ptr(),
        *(b, h, w, inputs, outputs, tile, x.dtype == torch.bfloat16),
        _TILES * max(inputs // _TILES_CHANNELS, 1),
        _parallel(),
        torch.get_num_threads(),
    )
    _check_memory(failed)
    return out


def weight_gradient(x: Tensor, grad: Tensor, tile: int) -> Tensor:
    """The gradient of the filters, summed over the batch.

    Args:
        x: [B, C, H, W], float32.
        grad: [B, O, H, W], float32, the gradient of the convolution's result.
        tile: by `tile_for(H, W)`.

    Returns:
        float32 [O, C, 3, 3], in memory [3, 3, O, C].
    """
    x, grad = channels_last(x), channels_last(grad)
    (b, inputs, h, w), outputs = x.shape, grad.shape[1]
    g = _filter_transform_2d(tile)
    sums = torch.empty(1, len(g), outputs * inputs)
    failed = _library().fastvae_conv3x3_weight_gradient(
        x.data_ptr(),
        grad.data_ptr(),
        sums.data_ptr(),
        *(b, h, w, inputs, outputs, tile, _TILES_OF_SUMS),
        _parallel(),
        torch.get_num_threads(),
    )
    _check_memory(failed)
    return _product(g.T.contiguous(), sums).view(3, 3, outputs, inputs).permute(2, 3, 0, 1)


def transformed(weight: Tensor, tile: int, backward: bool) -> Tensor:
    """G g G^T of each filter g, as the C++ code reads it: [blocks of n outputs, places, inputs, n], zeros at the end.

    Args:
        weight: [O, C, 3, 3].
        tile: 2 or 4.
        backward: whether for the gradient of the inputs, which has C outputs.

    Returns:
        float32, computed in float64.
    """
    weight = weight.flip(2, 3).transpose(0, 1) if backward else weight
    g, n = _filter_transform_2d(tile), _library().fastvae_conv3x3_outputs()
    weight = F.pad(weight, (*[0] * 6, 0, -len(weight) % n))
    outputs, inputs = weight.shape[:2]
    taps = weight.float().reshape(outputs // n, n, inputs, 9).permute(0, 3, 2, 1).reshape(-1, 9, inputs * n)
    return _product(g, taps)


def _product(matrix: Tensor, x: Tensor) -> Tensor:
    """matrix @ x for float64 [R, K] and float32 [B, K, N]: float32 [B, R, N], in float64 and in one order."""
    (rows, inner), (blocks, _, columns) = matrix.shape, x.shape
    out = torch.empty(blocks, rows, columns)
    sizes = blocks, rows, inner, columns
    pointers = matrix.data_ptr(), x.data_ptr(), out.data_ptr()
    _library().fastvae_small_product(*pointers, *sizes, _parallel(), torch.get_num_threads())
    return out


@cache
def _filter_transform_2d(tile: int) -> Tensor:
    """G of both axes, float64: a filter's nine taps -> its (tile + 2)^2 places."""
    g = filter_transform(tile)
    return torch.kron(g, g).contiguous()


def _check_memory(failed: int) -> None:
    if failed:
        raise torch.OutOfMemoryError("a 3x3 convolution has no memory for the transformed inputs of a few tiles")


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
    return {
        "fastvae_conv3x3_outputs": (number, []),
        "fastvae_conv3x3": (number, [*[pointer] * 5, *[number] * 8, pointer, number]),
        "fastvae_small_product": (None, [*[pointer] * 3, *[number] * 4, pointer, number]),
        "fastvae_conv3x3_weight_gradient": (number, [*[pointer] * 3, *[number] * 7, pointer, number]),
    }


SOURCES = native_library.Sources("convolutions", _HERE / "winograd.cpp", _HEADERS, (), _signatures)
