"""`conv_relu` on CPUs: 3x3 convolutions with frozen filters by Winograd's algorithm, in C++; see `winograd`.

    forward    y = max(conv(x, w) + b, 0)
    backward   dL/dx = conv([y > 0] dL/dy, w'), w' being w with its channels exchanged and its taps in reverse order

Both are one pass over the maps: bias, ReLU and its gradient cost no passes of their own. The filters are transformed
once and kept, since they are frozen; that takes four times their memory for each direction.
"""

import threading

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from . import winograd


def fits(x: Tensor, weight: Tensor, padding: int) -> bool:
    """Whether the C++ code computes such a call, and its gradient.

    Decided by sizes, dtypes and whether the filters are frozen, so that equal calls run equally on every machine.
    """
    return padding == 1 and weight.shape[1] % winograd.CHANNELS == 0 and fits_gradient(x, weight)


def fits_gradient(y: Tensor, weight: Tensor) -> bool:
    """The same for the gradient alone, with padding 1; y has the size of x. Also for images, of any channels."""
    return (
        y.device.type == "cpu"
        and y.dtype in (torch.float32, torch.bfloat16)
        and tuple(weight.shape[2:]) == (3, 3)
        and weight.shape[0] % winograd.CHANNELS == 0
        and not weight.requires_grad
        and 0 < y.numel() <= winograd.LARGEST
        # With one row or column most taps only see zeros, which ATen skips.
        and min(y.shape[2:]) > 1
    )


def forward(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """max(conv2d(x, weight, bias, padding=1), 0) of what `fits`.

    Args:
        x: [B, C, H, W].
        weight: [O, C, 3, 3]; rounded to x's dtype first.
        bias: [O]; the same.

    Returns:
        [B, O, H, W] of x's dtype in channels_last.
    """
    tile = winograd.tile_for(*x.shape[2:])
    filters = _kept(weight, x.dtype, tile, backward=False)
    bias = bias.to(x.dtype).float().contiguous()
    return winograd.convolve(x, filters, len(weight), tile, bias=bias)


def gradient(grad: Tensor, y: Tensor, weight: Tensor) -> Tensor:
    """The gradient with respect to x, of `forward(x, weight, bias)` = y.

    Args:
        grad: [B, O, H, W], the gradient with respect to y, of y's dtype.
        y: as `forward` returned it.
        weight: [O, C, 3, 3], as for `forward`.

    Returns:
        [B, C, H, W] of y's dtype in channels_last.
    """
    tile = winograd.tile_for(*y.shape[2:])
    filters = _kept(weight, y.dtype, tile, backward=True)
    return winograd.convolve(grad, filters, weight.shape[1], tile, mask=y)


# Transformed filters by storage and use, with what tells that they are still right. Threads take turns.
_turn = threading.Lock()
_filters: dict[tuple, tuple[StorageWeakRef, int, Tensor]] = {}


def _kept(weight: Tensor, dtype: torch.dtype, tile: int, backward: bool) -> Tensor:
    """The weight's transformed filters, made again after a change in place.

    Those of a weight that is gone are dropped when the next ones are made.

    A change that torch does not count, through `.data` or numpy, is not seen.
    """
    if weight.is_inference():  # torch counts none of its changes
        return winograd.transformed(weight.to(dtype), tile, backward)
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
        filters = winograd.transformed(weight.detach().to(dtype), tile, backward)
        # The reference keeps the storage's address from being used again, not its memory.
        _filters[key] = StorageWeakRef(storage), version, filters
        return filters
