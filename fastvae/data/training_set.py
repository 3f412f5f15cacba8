"""Opens the data set of `--data` for training and chooses the loader that decodes it (`--loader`)."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from fastvae.data import identity
from fastvae.data.cores import decoding_threads
from fastvae.data.dataset import EMBEDDED, identity_of, is_packed, open_images
from fastvae.data.identity import Identity
from fastvae.data.loaders.loader import Loader
from fastvae.data.loaders.packed import PackedLoader
from fastvae.data.loaders.picture_files import CROP, PictureFiles
from fastvae.data.packed import SPLITS, held_out_indices
from fastvae.data.sources.detect import read_source
from fastvae.data.sources.hub import place_of
from fastvae.data.sources.listing import is_jpeg
from fastvae.data.sources.source import Source
from fastvae.errors import UsageError, suggest
from fastvae.files.places import shown

LOADERS = ("auto", "dali", "pillow", "packed")


@dataclass(frozen=True)
class TrainingSet:
    """Training images and held-out images.

    Attributes:
        name: path of the data set, for messages.
        train: int64 [n], ascending: positions of the training images in the data set, as `loader` takes them.
        held_out: returns the first `count` held-out images, or all if there are fewer: uint8 [m, H, W, 3], 0..255, RGB.
        loader: loads batches.
        kind: which loader it is, "dali", "pillow" or "packed".
        reason: which loader it is and why, as a human-readable sentence.
        identity: identifies the training set.
    """

    name: str
    train: np.ndarray
    held_out: Callable[[int], np.ndarray]
    loader: Loader
    kind: str
    reason: str
    identity: Identity


def open_training_set(
    data: str,
    *,
    image_size: int,
    loader: str = "auto",
    device: torch.device,
    batch_size: int,
    workers: int | None = None,
) -> TrainingSet:
    """Opens a data set and chooses its loader.

    Args:
        data: as in `open_images`.
        image_size: pixels a side.
        loader: "packed" reads a packed file; anything else is prepared once, in the cache. "dali" and "pillow" decode a
            folder's files on the fly. "auto": dali for a folder of JPEGs with a GPU and DALI, else packed.
        device: of the training step. "dali" decodes there.
        batch_size: largest number of images in a batch.
        workers: decoding threads; by default one for each core available to this process.

    Raises:
        UsageError: the loader is unknown or cannot read this data, or a packed file has another image size.
        FastvaeError: the data are missing, empty or damaged, no images are held out, DALI is not installed, or the
            cache cannot be written.
    """
    if loader not in LOADERS:
        raise UsageError(f"unknown loader {loader!r}{suggest(loader, LOADERS)}")
    workers = decoding_threads(workers)
    path = place_of(data)
    if data == EMBEDDED or is_packed(path):
        if loader in ("dali", "pillow") and (data == EMBEDDED or os.path.lexists(path)):
            raise UsageError(
                f"--loader {loader} decodes picture files, and {shown(data)} contains decoded pixels; "
                "use --loader packed or auto, or --data with a folder of pictures"
            )
        return _packed(data, image_size, "its pixels need no decoding")
    if loader == "packed":
        return _packed(data, image_size, "as requested")
    if loader == "auto":
        source, streamed, reason = _source_for_dali(path, device)
        if not streamed:
            return _packed(data, image_size, reason, source)
        loader = "dali"
    else:
        source, reason = _checked_source(path, loader), "as requested"
    pictures = PictureFiles(source, image_size)
    held_out = held_out_indices(source.splits, path)
    if loader == "dali":
        from fastvae.data.loaders.dali import DaliLoader

        chosen = DaliLoader(pictures, batch_size=batch_size, device=device, workers=workers)
        where = f" on {'the GPU' if device.type == 'cuda' else 'the CPU'}"
    else:
        from fastvae.data.loaders.pillow import PillowLoader

        chosen, where = PillowLoader(pictures, workers=workers), ""
    return TrainingSet(
        name=shown(path),
        train=np.flatnonzero(source.splits == SPLITS["train"]),
        held_out=lambda count: np.stack([pictures.decode(index) for index in held_out[:count]]),
        loader=chosen,
        kind=loader,
        reason=f"{loader}{where}: {reason}",
        identity=identity.of_pictures(source, CROP),
    )


def _packed(data: str, image_size: int, reason: str, source: Source | None = None) -> TrainingSet:
    images = open_images(data, image_size, source=source)
    held_out = images.held_out()
    return TrainingSet(
        name=shown(images.path),
        train=images.indices("train"),
        held_out=lambda count: np.asarray(images.images[held_out[:count]]),
        loader=PackedLoader(images),
        kind="packed",
        reason=f"packed: {reason}",
        identity=identity_of(data, images),
    )


def _source_for_dali(path: Path, device: torch.device) -> tuple[Source | None, bool, str]:
    """The source if it was listed, whether "auto" decodes it with DALI, and the reason."""
    from fastvae.data.decoders import dali as decode_dali

    if device.type != "cuda":
        return None, False, "decoded once, since there is no GPU to decode on"
    if not decode_dali.is_available():
        return None, False, "decoded once, since DALI is not installed (pip install -e '.[dali]')"
    source = read_source(path)
    if not source.has_files:
        return source, False, "decoded once, since the images are not files of their own"
    if others := _not_jpegs(source):
        return source, False, f"decoded once, since {len(others)} pictures are not JPEGs"
    return source, True, "a folder of JPEGs, a GPU and DALI"


def _checked_source(path: Path, loader: str) -> Source:
    source = read_source(path)
    if not source.has_files:
        is_array = isinstance(source.images, np.ndarray)
        form = f"is {source.kind} in arrays" if is_array else "holds them in other files, decoded once before training"
        raise UsageError(
            f"--loader {loader} decodes picture files, and {shown(path)} {form}; use --loader packed or auto"
        )
    if loader == "dali" and (others := _not_jpegs(source)):
        raise UsageError(
            f"--loader dali decodes JPEGs, and {len(others)} of {len(source.names)} pictures in {shown(path)} are not "
            f"JPEGs (first: {shown(others[0])}); use --loader pillow or packed"
        )
    return source


def _not_jpegs(source: Source) -> list[str]:
    return [name for name, path in zip(source.names, source.images, strict=True) if not is_jpeg(path)]
