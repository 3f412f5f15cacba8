"""What callers hand in as images, made into one form, or refused with words that help."""

import math
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fastvae.errors import FastvaeError

# Rounding in a resizer or a half-precision cast goes this far over the edge.
_TOLERANCE = 1e-3


_CPU = torch.device("cpu")


def as_batch(images: Any, size: int, device: torch.device = _CPU) -> Tensor:
    """A batch [B, 3, size, size]: uint8 pixels in 0..255, or float32 in [-1, 1]; a single image is a batch of one.

    Args:
        images: one of
            uint8 array or tensor [H, W, 3] or [B, H, W, 3], values 0..255;
            float array or tensor [3, H, W] or [B, 3, H, W], values in [-1, 1];
            a PIL image of mode RGB, or a list of them.
        size: height and width that they must have, in pixels.
        device: where to put them.

    Returns:
        The batch on `device`; a view of the images where that is possible. On a GPU values are not looked at, as the
        host would have to wait for them.

    Raises:
        FastvaeError: it is something else, of another size or number of channels, not finite, or out of range.
    """
    if isinstance(images, Image.Image):
        images = [images]
    if isinstance(images, (list, tuple)) and images and all(isinstance(i, Image.Image) for i in images):
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
        latent: dimensions that it must have.
        device: where to put it.

    Raises:
        FastvaeError: it is something else. On a GPU values are not looked at.
    """
    if isinstance(z, np.ndarray):
        z = _tensor(z)
    if isinstance(z, Tensor):
        z = _readable(z)
    if not isinstance(z, Tensor) or not z.is_floating_point() or z.dim() != 2 or z.shape[1] != latent:
        raise FastvaeError(f"expected z as floats [B, {latent}]; got {_kind(z)}")
    z = _put(z, device).float()
    if device.type == "cpu" and not bool(torch.isfinite(z).all()):
        raise FastvaeError("z holds NaN or infinite values")
    return z


def _readable(x: Tensor) -> Tensor:
    """An ordinary tensor, whose numbers lie in memory as they are."""
    if x.is_nested or x.layout != torch.strided:
        raise FastvaeError(
            "expected a dense tensor; got a sparse or nested one: to_dense() or to_padded_tensor() first"
        )
    try:
        has_memory = not x.numel() or bool(x.data_ptr())
    except RuntimeError:  # of a tracer, or of torch.func's
        has_memory = False
    if not has_memory:
        raise FastvaeError(f"expected a tensor with numbers in memory; got a {type(x).__name__} on {x.device} without")
    return x.detach().as_subclass(Tensor).resolve_neg()


def _put(x: Tensor, device: torch.device) -> Tensor:
    # The copy to a GPU does not wait for it: from pinned memory it overlaps with what the caller does next.
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
    words = f"expected {what} of shape {wanted}, or one without B; got {got}"
    sizes = got[-3:]
    if sizes in ([size, size, 3], [3, size, size]):
        other = "permute(0, 3, 1, 2)" if what == "floats" else "permute(0, 2, 3, 1)"
        return f"{words}: the channels are at the other end; {other} of a batch puts them right"
    if sizes and (sizes[-1] in (1, 4) or sizes[0] in (1, 4)):
        return f"{words}: three channels are wanted, red, green, blue"
    return f"{words}: crop and resize first, e.g. with PIL.Image.resize(({size}, {size}))"


def _pixels(image: Image.Image, size: int) -> np.ndarray:
    if image.mode != "RGB":
        raise FastvaeError(f"expected a PIL image of mode RGB; got {image.mode}: image.convert('RGB') makes one")
    if image.size != (size, size):
        width, height = image.size
        raise FastvaeError(
            f"expected a PIL image of {size}x{size} pixels; got {width}x{height}: crop it to a square, then "
            f"image.resize(({size}, {size}))"
        )
    try:
        return np.asarray(image)
    except (OSError, ValueError, SyntaxError) as error:  # of a file that is read only now
        raise FastvaeError(f"a PIL image cannot be read: {error}") from error


def _tensor(array: np.ndarray) -> Tensor:
    if isinstance(array, np.ma.MaskedArray):
        raise FastvaeError("expected an array without a mask: fill it first, with array.filled(...)")
    if array.dtype.kind not in "fui" or array.dtype.itemsize > 8:
        raise FastvaeError(f"expected an array of uint8 or floats; got {array.dtype}")
    # Read-only and backwards arrays, and fields of records, are ordinary for NumPy, and not for torch.
    steps = all(stride >= 0 and stride % array.dtype.itemsize == 0 for stride in array.strides)
    usable = array.flags.writeable and steps and array.dtype.isnative
    return torch.from_numpy(array if usable else array.astype(array.dtype.newbyteorder("="), copy=True))


def _check_range(images: Tensor) -> None:
    if not images.numel():
        return
    # In pieces, as torch copies what is not contiguous.
    bounds = [bound.item() for piece in images.split(1024) for bound in piece.aminmax()]
    if all(abs(bound) <= 1 + _TOLERANCE for bound in bounds):  # false for NaN
        return
    if any(math.isnan(bound) for bound in bounds):
        raise FastvaeError("the images hold NaN: expected floats in [-1, 1]")
    low, high = min(bounds), max(bounds)
    words = f"expected floats in [-1, 1]; got values from {low:.4g} to {high:.4g}"
    if low >= 0 and 1.5 < high <= 255:
        raise FastvaeError(f"{words}, which look like 0..255: pass them as uint8, or images / 127.5 - 1")
    raise FastvaeError(f"{words}: scale or clamp them first")
