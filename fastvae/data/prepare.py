"""Decodes a data set once into a packed file."""

import contextlib
import itertools
import logging
import os
import shutil
from collections.abc import Generator, Iterable, Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
from PIL import Image

from fastvae.data.cores import decoding_threads
from fastvae.data.decoders import pillow as decode_pillow
from fastvae.data.decoders.crop import Crop, check_crop
from fastvae.data.decoders.encoded import BrokenImage
from fastvae.data.loaders.broken import NAMED, BrokenPictures
from fastvae.data.packed import PackedImages, PackedWriter, check_destination
from fastvae.data.packed_header import MAGIC
from fastvae.data.sources.detect import check_kind, read_source
from fastvae.data.sources.hub import place_of
from fastvae.data.sources.source import Source
from fastvae.errors import FastvaeError, UsageError, suggest
from fastvae.files.places import resolved, shown
from fastvae.files.reading import open_regular
from fastvae.progress_bar import progress_bar

DECODERS = ("auto", "pillow", "dali")
DEFAULT_IMAGE_SIZE = 64
_BATCH = 1024
_logger = logging.getLogger("fastvae")


def prepare(
    source_path: str | os.PathLike[str],
    out_path: str | os.PathLike[str],
    *,
    kind: str = "auto",
    image_size: int | None = None,
    crop: Crop = "auto",
    decoder: str = "auto",
    annotations: str | os.PathLike[str] | None = None,
    workers: int | None = None,
    progress: bool = True,
    overwrite: bool = False,
) -> PackedImages:
    """Decodes, crops and resizes every image of a data set and writes one packed file.

    A file that cannot be decoded, or has less than 8 pixels a side after the crop, is skipped and named in the log
    "fastvae". If more than 1 % of the files are skipped, nothing is written.

    Args:
        source_path: folder with CelebA, CIFAR-10 or any pictures; a zip, tar or Parquet file, or a folder of shards,
            read without unpacking; or "hub:user/name", a data set of the Hugging Face Hub (see `sources.hub`).
        out_path: file to write, usually `<name>.fvae`.
        kind: one of `sources.detect.KINDS`; see `sources.detect.read_source`.
        image_size: side in pixels, 8 to 1024; by default 64, and 32 for CIFAR-10.
        crop: "auto" (the authors' box for a 178x218 picture, else the largest centred square), "celeba",
            "center", None (the complete picture) or (left, top, right, bottom); see `decoders.crop.check_crop`.
        decoder: "pillow", "dali" (on the CPU), or "auto": DALI if installed. Their pixels are the same; see
            `decoders.dali`.
        annotations: folder with CelebA's two lists, if they are not near the pictures.
        workers: decoding threads; by default one for each core available to this process.
        progress: whether to draw a progress bar on stderr.
        overwrite: whether to replace a file that exists.

    Returns:
        The packed file, opened.

    Raises:
        UsageError: an argument is invalid.
        FastvaeError: the source cannot be read, more than 1 % of it is broken, or the file cannot be written.
    """
    source_path, out_path = place_of(source_path), resolved(out_path)
    annotations = None if annotations is None else resolved(annotations)
    check_kind(kind)
    check_crop(crop)
    if image_size is not None and not 8 <= image_size <= 1024:
        raise UsageError(f"image_size must be 8 to 1024 pixels; got {image_size}")
    decoding_threads(workers)
    check_destination(out_path, overwrite=overwrite)
    _choose_decoder(decoder)
    source = read_source(source_path, kind=kind, annotations=annotations)
    options = {"crop": crop, "decoder": decoder, "workers": workers, "progress": progress, "overwrite": overwrite}
    return prepare_source(source, out_path, image_size=image_size, **options)


def prepare_source(
    source: Source,
    out_path: Path,
    *,
    image_size: int | None = None,
    crop: Crop = "auto",
    decoder: str = "auto",
    workers: int | None = None,
    progress: bool = True,
    overwrite: bool = False,
) -> PackedImages:
    """`prepare` for a data set that has already been listed."""
    check_destination(out_path, overwrite=overwrite)
    _check_not_an_input(source, out_path)
    size = image_size or source.native_size or DEFAULT_IMAGE_SIZE
    _check_space(out_path, len(source.names) * size * size * 3)

    images, decoder_module = decoded(source, crop=crop, size=size, decoder=decoder, workers=workers)
    with (
        contextlib.closing(images),  # always ends the decoding threads
        progress_bar(images, what="prepare", total=len(source.names), unit=" images", show=progress) as bar,
        PackedWriter(out_path, image_size=size, attribute_names=source.attribute_names, overwrite=overwrite) as writer,
    ):
        broken = _write(bar, source, writer)
        writer.info = {
            "kind": source.kind,
            # Only the name: a packed file that is passed on should not reveal its author's folders.
            "source": source.origin or source.root.resolve().name,
            "split_rule": source.split_rule,
            "crop": crop,
            "resize": f"bilinear, antialiased, to {size}x{size}",
            "decoder": decoder_module.describe(),
            "skipped": {"count": len(broken), "first": broken[:NAMED]},
        }
    for line in broken[:NAMED]:
        _logger.warning("skipped %s", line)
    if len(broken) > NAMED:
        _logger.warning("skipped %d more that cannot be decoded", len(broken) - NAMED)
    packed = PackedImages.open(out_path)
    counts = ", ".join(f"{len(packed.indices(name))} {name}" for name in ("train", "validation", "test"))
    _logger.info("%s: %d images (%s), %d skipped", shown(out_path), len(packed), counts, len(broken))
    return packed


def decoded(
    source: Source,
    indices: np.ndarray | None = None,
    *,
    crop: Crop,
    size: int,
    decoder: str = "auto",
    workers: int | None = None,
) -> tuple[Generator[np.ndarray | BrokenImage, None, None], ModuleType]:
    """Decodes, crops and resizes the images of a data set, in threads that work ahead of the reader.

    Args:
        source: the data set.
        indices: int64 [n], ascending: which of its images; None for all.
        crop: see `decoders.crop.check_crop`.
        size: pixels a side.
        decoder: as for `prepare`.
        workers: decoding threads; by default one for each core available to this process.

    Returns:
        For each image uint8 [size, size, 3], 0..255, RGB, or a BrokenImage; closing it ends the threads. And the
        module that decodes.

    Raises:
        UsageError, FastvaeError: as `prepare` for `decoder`.
    """
    module = _choose_decoder(decoder)
    if isinstance(source.images, np.ndarray):
        pixels = source.images if indices is None else source.images[indices]
        return _resized(pixels, crop=crop, size=size), decode_pillow
    pictures = source.images
    if indices is not None:  # a container is read from its start to its end
        wanted = np.zeros(len(source.names), bool)
        wanted[indices] = True
        pictures = itertools.compress(pictures, wanted)
    return module.decode(pictures, crop=crop, size=size, workers=decoding_threads(workers)), module


def _write(images: Iterable[np.ndarray | BrokenImage], source: Source, writer: PackedWriter) -> list[str]:
    """Writes the decoded images, and returns a line for each broken one.

    Raises:
        FastvaeError: more than 1 % of all images are broken; raised as soon as the error can name ten of them.
    """
    broken = BrokenPictures(source.names, "nothing was written")
    for batch in _batches(enumerate(images), _BATCH):
        decoded = [(index, image) for index, image in batch if isinstance(image, np.ndarray)]
        for index, image in batch:
            if isinstance(image, BrokenImage):
                broken.add(index, image.reason)
        if broken.are_too_many and len(broken) >= NAMED:
            break
        if decoded:
            indices = [index for index, _ in decoded]
            writer.append(
                np.stack([image for _, image in decoded]),
                splits=source.splits[indices],
                attributes=source.attributes[indices],
                names=[source.names[index] for index in indices],
            )
    broken.check()
    return broken.lines()


def _batches(items: Iterator, size: int) -> Iterator[list]:
    while batch := list(itertools.islice(items, size)):
        yield batch


def _resized(pixels: np.ndarray, *, crop: Crop, size: int) -> Generator[np.ndarray, None, None]:
    """uint8 [N, H, W, 3] -> N times uint8 [size, size, 3]."""
    for image in pixels:
        yield decode_pillow.crop_and_resize(Image.fromarray(image), crop=crop, size=size)


def _choose_decoder(decoder: str) -> ModuleType:
    if decoder not in DECODERS:
        raise UsageError(f"unknown decoder {decoder!r}{suggest(decoder, DECODERS)}")
    if decoder == "pillow":
        return decode_pillow
    from fastvae.data.decoders import dali as decode_dali

    if decode_dali.is_available():
        return decode_dali
    if decoder == "dali":
        raise FastvaeError("DALI cannot be imported; run `pip install -e '.[dali]'`, or use --decoder pillow")
    return decode_pillow


def _check_not_an_input(source: Source, out_path: Path) -> None:
    if not out_path.exists():
        return
    replaced = out_path.stat()
    for path in source.files or _files_of_arrays(source.root):
        with contextlib.suppress(OSError):
            if os.path.samestat(path.stat(), replaced):
                raise FastvaeError(f"{shown(out_path)} is one of the input files; choose another name")


def _files_of_arrays(root: Path) -> Iterator[Path]:
    """CIFAR's archive, or the files in its folder that are not packed ones, such as an earlier result."""
    yield root
    for pattern in ("*", "*/*"):
        yield from (path for path in root.glob(pattern) if not _starts_packed(path))


def _starts_packed(path: Path) -> bool:
    try:
        with open_regular(path) as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError:
        return False


def _check_space(path: Path, needed: int) -> None:
    try:
        free = shutil.disk_usage(path.parent).free
    except OSError:  # some file systems do not report it
        return
    if needed > free:
        raise FastvaeError(
            f"{shown(path)} needs {needed / 1e6:.1f} MB and the disk has {free / 1e6:.1f} MB free; "
            "free some space or choose another disk"
        )
