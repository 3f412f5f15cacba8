"""Converts images in any accepted form to a batch, or raises with advice."""

import math
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from fastvae.errors import FastvaeError

if TYPE_CHECKING:
    from PIL.Image import Image

# Rounding in resizing or in half precision may exceed the range by this much.
_TOLERANCE = 1e-3


_CPU = torch.device("cpu")


def as_batch(images: Any, size: int, device: torch.device = _CPU) -> Tensor:
    """Images as a batch [B, 3, size, size]: uint8 in 0..255, or float32 in [-1, 1]; one image is a batch of one.

    Args:
        images: one of
            uint8 array or tensor [H, W, 3] or [B, H, W, 3], values 0..255;
            float array or tensor [3, H, W] or [B, 3, H, W], values in [-1, 1];
            a PIL image of mode RGB, or a list of them.
        size: expected height and width, in pixels.
        device: of the batch.

    Returns:
        The batch on `device`; a view of the images if possible. On a GPU values are not checked, since the host would
        have to wait for them.

    Raises:
        FastvaeError: the type, size, number of channels or range is wrong, or a value is not finite.
    """
    if _is_picture(images):
        images = [images]
    if isinstance(images, (list, tuple)) and images and all(_is_picture(i) for i in images):
        images = np.stack([_pixels(image, size) for image in images])
    if isinstance(images, np.ndarray):
        images = _tensor(images)
    if not isinstance(images, Tensor):
        raise FastvaeError(f"expected {_expected(size)}; got {_kind(images)}")
    images = _readable(images)
    shape = list(images.shape)
    if images.dtype == torch.uint8:
        images = images[None] if images.dim() == 3 else images
        if images.dim() != 4 or tuple(images.shape[1:]) != (size, size, 3):
            raise FastvaeError(_wrong_shape("8-bit pixels", f"[B, {size}, {size}, 3]", shape, size))
        return _put(images.permute(0, 3, 1, 2), device)
    if not images.is_floating_point():
        raise FastvaeError(f"expected {_expected(size)}; got values of {images.dtype}: 0..255 belong in uint8")
    images = images[None] if images.dim() == 3 else images
    if images.dim() != 4 or tuple(images.shape[1:]) != (3, size, size):
        raise FastvaeError(_wrong_shape("floats", f"[B, 3, {size}, {size}]", shape, size))
    images = _put(images, device).float()
    if device.type == "cpu":
        _check_range(images)
    return images


def as_latents(z: Any, latent: int, device: torch.device = _CPU) -> Tensor:
    """z as float32 [B, latent].

    Args:
        z: float array or tensor [B, latent], finite.
        latent: expected dimensions.
        device: of the result. On a GPU values are not checked.

    Raises:
        FastvaeError: the type or shape is wrong, or a value is not finite.
    """
    if isinstance(z, np.ndarray):
        z = _tensor(z)
    if isinstance(z, Tensor):
        z = _readable(z)
    if not isinstance(z, Tensor) or not z.is_floating_point() or z.dim() != 2 or z.shape[1] != latent:
        raise FastvaeError(f"expected z as floats [B, {latent}]; got {_kind(z)}")
    z = _put(z, device).float()
    if device.type == "cpu" and not bool(torch.isfinite(z).all()):
        raise FastvaeError("expected finite values; z holds NaN or infinite ones")
    return z


def _readable(x: Tensor) -> Tensor:
    """A plain dense tensor, with lazy negation resolved."""
    if x.is_nested or x.layout != torch.strided:
        raise FastvaeError(
            "expected a dense tensor; got a sparse or nested one: call to_dense() or to_padded_tensor() first"
        )
    try:
        has_memory = not x.numel() or bool(x.data_ptr())
    except RuntimeError:  # tensors of a tracer or of torch.func
        has_memory = False
    if not has_memory:
        raise FastvaeError(
            f"expected a tensor with data in memory; got a {type(x).__name__} on {x.device} without data"
        )
    return x.detach().as_subclass(Tensor).resolve_neg()


def _put(x: Tensor, device: torch.device) -> Tensor:
    # Non-blocking: a copy from pinned memory overlaps with what the caller does next.
    return x.to(device, non_blocking=device.type != "cpu")


def _expected(size: int) -> str:
    return (
        f"images as uint8 [B, {size}, {size}, 3], floats [B, 3, {size}, {size}] in [-1, 1], or PIL images of "
        f"{size}x{size} pixels"
    )


def _kind(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor {list(value.shape)} of {value.dtype}"
    return f"a {type(value).__name__}" + (" that is empty" if isinstance(value, (list, tuple)) and not value else "")


def _wrong_shape(what: str, wanted: str, got: list[int], size: int) -> str:
    message = f"expected {what} of shape {wanted}, or without B; got {got}"
    sizes = got[-3:]
    if sizes in ([size, size, 3], [3, size, size]):
        other = "permute(0, 3, 1, 2)" if what == "floats" else "permute(0, 2, 3, 1)"
        return f"{message}: the channels are in the wrong place; use {other} on a batch"
    if sizes and (sizes[-1] in (1, 4) or sizes[0] in (1, 4)):
        return f"{message}: convert to three channels, red, green, blue"
    return f"{message}: crop and resize first, e.g. with PIL.Image.resize(({size}, {size}))"


def _is_picture(value: Any) -> bool:
    """Whether it is a PIL image: there is none until somebody has imported PIL, which takes 20 ms."""
    # Another thread may be importing it.
    cls = getattr(sys.modules.get("PIL.Image"), "Image", None)
    return cls is not None and isinstance(value, cls)


def _pixels(image: "Image", size: int) -> np.ndarray:
    if image.mode != "RGB":
        raise FastvaeError(f"expected a PIL image of mode RGB; got {image.mode}: use image.convert('RGB')")
    if image.size != (size, size):
        width, height = image.size
        raise FastvaeError(
            f"expected a PIL image of {size}x{size} pixels; got {width}x{height}: crop it to a square, then "
            f"image.resize(({size}, {size}))"
        )
    try:
        return np.asarray(image)
    except (OSError, ValueError, SyntaxError) as error:  # PIL reads the file only now
        raise FastvaeError(f"a PIL image cannot be read: {error}") from error


def _tensor(array: np.ndarray) -> Tensor:
    if isinstance(array, np.ma.MaskedArray):
        raise FastvaeError(
            "expected an array without a mask; got a masked array: fill it first, with array.filled(...)"
        )
    if array.dtype.kind not in "fui" or array.dtype.itemsize > 8:
        raise FastvaeError(f"expected an array of uint8 or floats; got {array.dtype}")
    # NumPy supports read-only arrays, negative strides and fields of records; torch does not.
    steps = all(stride >= 0 and stride % array.dtype.itemsize == 0 for stride in array.strides)
    usable = array.flags.writeable and steps and array.dtype.isnative
    return torch.from_numpy(array if usable else array.astype(array.dtype.newbyteorder("="), copy=True))


def _check_range(images: Tensor) -> None:
    if not images.numel():
        return
    # In pieces, since torch makes a copy of tensors that are not contiguous.
    bounds = [bound.item() for piece in images.split(1024) for bound in piece.aminmax()]
    if all(abs(bound) <= 1 + _TOLERANCE for bound in bounds):  # false for NaN
        return
    if any(math.isnan(bound) for bound in bounds):
        raise FastvaeError("expected floats in [-1, 1]; the images hold NaN")
    low, high = min(bounds), max(bounds)
    message = f"expected floats in [-1, 1]; got values from {low:.4g} to {high:.4g}"
    if low >= 0 and 1.5 < high <= 255:
        raise FastvaeError(f"{message}, which look like 0..255: pass them as uint8, or images / 127.5 - 1")
    raise FastvaeError(f"{message}: scale or clamp them first")
