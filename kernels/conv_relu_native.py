"""`conv_relu` on CPUs: 3x3 convolutions with frozen filters by Winograd's algorithm, in C++ (`kernels/native`).

    forward    y = max(conv(x, w) + b, 0)
    backward   dL/dx = conv([y > 0] dL/dy, w'), w' being w with its channels exchanged and its taps in reverse order

Both are one pass over the maps: bias, ReLU and its gradient cost no passes of their own. A tile of 4x4 results takes 36
products for each pair of channels instead of 144, and maps that 2x2 tiles cover with fewer products get those. The
filters are transformed once and kept, since they are frozen; that takes four times their memory for each direction.

Arithmetic is in float32, also for bfloat16 maps. Against float64 the norm of the error is, in float32 on the network's
shapes with random operands, 0.6e-6 to 0.9e-6 of the result's with 4x4 tiles, where torch's convolution has 0.3e-6 to
0.8e-6, and the largest error 1e-6 to 2.2e-6 of the largest value (0.6e-6 to 1.9e-6); 1e-5 is never exceeded in tests.
In bfloat16 it is torch's: the rounding of the result. NaN stays NaN, and the whole tile of an infinity becomes NaN.
Each sum has one order, whatever the batch and the number of threads: results are the same to the bit.

Source: Lavin and Gray 2016, arXiv:1509.09308, section 4.
"""

import contextlib
import ctypes
import logging
import threading
from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from fastvae import native_library
from fastvae.errors import FastvaeError

from .filter_transform import filter_transform
from .layout import channels_last

DTYPES = (torch.float32, torch.bfloat16)
# Of a call or a few in a row, in float32, relative to the largest value or in the norm.
STATED_ERROR = 1e-5

# Channels must fill the widest vectors, one of inputs and two of outputs.
_CHANNELS = 32
# Tiles that share one reading of the filters, for each so many input channels: their transformed inputs stay in the
# second-level cache, and filters that do not fit into it are read less often.
_TILES, _TILES_CHANNELS = 12, 128
# Tensors' sizes are `int` in C++.
_LARGEST = 2**31 - 1

_HERE = Path(__file__).parent / "native"
_HEADERS = tuple(_HERE / name for name in ("conv3x3.h", "transforms.h", "products.h", "lanes.h"))
_logger = logging.getLogger("fastvae")


def fits(x: Tensor, weight: Tensor, padding: int) -> bool:
    """Whether the C++ code computes such a call, and its gradient.

    Decided by sizes, dtypes and whether the filters are frozen, so that equal calls run equally on every machine.
    """
    return padding == 1 and weight.shape[1] % _CHANNELS == 0 and fits_gradient(x, weight)


def fits_gradient(y: Tensor, weight: Tensor) -> bool:
    """The same for the gradient alone, with padding 1; y has the size of x. Also for images, of any channels."""
    return (
        y.device.type == "cpu"
        and y.dtype in DTYPES
        and tuple(weight.shape[2:]) == (3, 3)
        and weight.shape[0] % _CHANNELS == 0
        and not weight.requires_grad
        and 0 < y.numel() <= _LARGEST
        # With one row or column most taps only see zeros, which ATen skips.
        and min(y.shape[2:]) > 1
    )


@cache
def is_available() -> bool:
    """Whether the C++ code can run here; compiles it at the first call on a machine, which takes some ten seconds."""
    try:
        _library()
        _parallel()
    except FastvaeError as error:
        _logger.info("the loss network runs on torch's convolutions, without the faster ones in C++: %s", error)
        return False
    return True


def forward(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """max(conv2d(x, weight, bias, padding=1), 0) of what `fits`.

    Args:
        x: [B, C, H, W].
        weight: [O, C, 3, 3]; rounded to x's dtype first.
        bias: [O]; the same.

    Returns:
        [B, O, H, W] of x's dtype in channels_last.
    """
    tile = _tile(*x.shape[2:])
    filters = _kept(weight, x.dtype, tile, backward=False)
    return _run(x, None, filters, bias.to(x.dtype).float().contiguous(), len(weight), tile)


def gradient(grad: Tensor, y: Tensor, weight: Tensor) -> Tensor:
    """The gradient with respect to x, of `forward(x, weight, bias)` = y.

    Args:
        grad: [B, O, H, W], the gradient with respect to y, of y's dtype.
        y: as `forward` returned it.
        weight: [O, C, 3, 3], as for `forward`.

    Returns:
        [B, C, H, W] of y's dtype in channels_last.
    """
    tile = _tile(*y.shape[2:])
    filters = _kept(weight, y.dtype, tile, backward=True)
    return _run(grad, y, filters, None, weight.shape[1], tile)


def _tile(height: int, width: int) -> int:
    """The tile size with fewer products; the larger one reads less memory."""
    products = {tile: -(-height // tile) * -(-width // tile) * (tile + 2) ** 2 for tile in (4, 2)}
    return min(products, key=products.__getitem__)


def _run(x: Tensor, y: Tensor | None, filters: Tensor, bias: Tensor | None, outputs: int, tile: int) -> Tensor:
    x, y = channels_last(x), None if y is None else channels_last(y)
    b, inputs, h, w = x.shape
    out = torch.empty(b, outputs, h, w, dtype=x.dtype, memory_format=torch.channels_last)
    failed = _library().fastvae_conv3x3(
        x.data_ptr(),
        None if y is None else y.data_ptr(),
        filters.data_ptr(),
        None if bias is None else bias.data_ptr(),
        out.data_ptr(),
        *(b, h, w, inputs, outputs, tile, x.dtype == torch.bfloat16),
        _TILES * max(inputs // _TILES_CHANNELS, 1),
        _parallel(),
        torch.get_num_threads(),
    )
    if failed:
        raise torch.OutOfMemoryError("conv_relu: no memory for the transformed inputs of a few tiles")
    return out


# Transformed filters by storage and use, with what tells that they are still right. Threads take turns.
_turn = threading.Lock()
_filters: dict[tuple, tuple[StorageWeakRef, int, Tensor]] = {}


def _kept(weight: Tensor, dtype: torch.dtype, tile: int, backward: bool) -> Tensor:
    """The weight's transformed filters, made again after a change in place.

    Those of a weight that is gone are dropped when the next ones are made.

    A change that torch does not count, through `.data` or numpy, is not seen.
    """
    if weight.is_inference():  # torch counts none of its changes
        return transformed(weight.to(dtype), tile, backward)
    storage = weight.untyped_storage()
    use = (weight.storage_offset(), weight.shape, weight.stride(), weight.dtype, dtype, tile, backward)
    key, version = (storage._cdata, *use), weight._version
    with _turn:
        if key in _filters:
            kept, made_of, filters = _filters[key]
            if made_of == version and not kept.expired():
                return filters
        for old in [old for old, (kept, *_) in _filters.items() if kept.expired()]:
            del _filters[old]
        filters = transformed(weight.detach().to(dtype), tile, backward)
        # The reference keeps the storage's address from being used again, not its memory.
        _filters[key] = StorageWeakRef(storage), version, filters
        return filters


def transformed(weight: Tensor, tile: int, backward: bool) -> Tensor:
    """G g G^T of each filter g, as the C++ code reads it: [blocks of n outputs, places, inputs, n], zeros at the end.

    Args:
        weight: [O, C, 3, 3].
        tile: 2 or 4.
        backward: whether for the gradient, which has C outputs.
    """
    weight = weight.flip(2, 3).transpose(0, 1) if backward else weight
    g, n = filter_transform(tile), _library().fastvae_conv3x3_outputs()
    weight = F.pad(weight, (*[0] * 6, 0, -len(weight) % n))
    outputs, inputs = weight.shape[:2]
    places = torch.einsum("ya,xb,ocab->yxoc", g, g, weight.double()).float()
    return places.reshape(-1, outputs // n, n, inputs).permute(1, 0, 3, 2).contiguous()


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
    }


SOURCES = native_library.Sources("convolutions", _HERE / "conv_relu.cpp", _HEADERS, (), _signatures)
