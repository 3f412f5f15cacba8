"""Encodes the images of a data set, in batches, as parts that are kept whatever ends it."""

import contextlib
import itertools
from collections.abc import Iterable, Iterator

import numpy as np
import torch

from fastvae.data.decoders.encoded import BrokenImage
from fastvae.encode.images import Images
from fastvae.encode.parts import Parts
from fastvae.errors import FastvaeError
from fastvae.inference.accelerated import AcceleratedVAE
from fastvae.progress_bar import progress_bar

_LARGEST_BATCH = 256
# Bytes of pixels in a batch; as floats, four times as many.
_BATCH_BYTES = 64 << 20


def batch_size(image_size: int) -> int:
    """Images that are encoded at once: 256, fewer if they are larger than 256x256."""
    return max(1, min(_LARGEST_BATCH, _BATCH_BYTES // (3 * image_size**2)))


def encode(vae: AcceleratedVAE, images: Images, indices: np.ndarray, parts: Parts, *, log_variances: bool) -> None:
    """Encodes what is not in parts yet. Whatever interrupts it, the finished images are kept.

    Args:
        vae: encodes.
        images: of the data set.
        indices: int64 [n], ascending: which of them.
        parts: receive the results.
        log_variances: whether to keep the log-variances, too.

    Raises:
        FastvaeError: a result is not finite, or a part cannot be written.
    """
    left = indices[parts.done :]
    options = {"total": len(indices), "initial": parts.done, "unit": " images"}
    try:
        with contextlib.closing(images.decode(left)) as pictures, progress_bar(what="encode", **options) as bar:
            for batch in _batches(zip(left, pictures, strict=True), batch_size(vae.image_size)):
                skipped = {int(i): image.reason for i, image in batch if isinstance(image, BrokenImage)}
                read = [(i, image) for i, image in batch if int(i) not in skipped]
                pixels = np.array([image for _, image in read], np.uint8).reshape(-1, vae.image_size, vae.image_size, 3)
                rows = _encoded(vae, pixels, log_variances)
                parts.add(np.array([i for i, _ in read], np.int64), rows, skipped)
                bar.update(len(batch))
    except BaseException:
        with contextlib.suppress(FastvaeError):
            parts.flush()
        raise
    parts.flush()


def _encoded(vae: AcceleratedVAE, pixels: np.ndarray, log_variances: bool) -> dict[str, np.ndarray]:
    with torch.inference_mode():
        both = [rows.float().cpu().numpy() for rows in vae.encode(pixels)]
    if not all(np.isfinite(rows).all() for rows in both):
        raise FastvaeError("the model's latents contain NaN or infinity: did training diverge? Use another checkpoint")
    return dict(zip(("means", "log_variances") if log_variances else ("means",), both, strict=False))


def _batches(items: Iterable, size: int) -> Iterator[list]:
    items = iter(items)
    while batch := list(itertools.islice(items, size)):
        yield batch
