"""Reads CIFAR-10 in its binary form, as one PNG per batch, or as one folder per class."""

import dataclasses
from pathlib import Path

import numpy as np
from PIL import Image

from fastvae.data.packed import SPLITS
from fastvae.data.sources.folder import read_folder, split_of
from fastvae.data.sources.source import Source
from fastvae.errors import FastvaeError
from fastvae.files.places import is_file, is_folder, shown
from fastvae.files.reading import Malformed, conform, open_regular, parse_json, read_text

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SIDE = 32
_PIXEL_BYTES = 3 * SIDE * SIDE
_TRAIN_BATCHES = tuple(f"data_batch_{number}" for number in range(1, 6))
_BATCHES = (*_TRAIN_BATCHES, "test_batch")
_INNER_FOLDERS = ("cifar-10-batches-bin", "cifar-10-batches-py")
# CIFAR-10 has 10,000 images a batch.
_MAX_ROWS = 65536
_PICKLE_ADVICE = (
    "these are Python pickles, which fastvae does not load, since loading one can run any code; "
    "use the binary version, cifar-10-binary.tar.gz"
)


def is_cifar10(root: Path) -> bool:
    """Whether the folder contains CIFAR-10, in any form; `read_cifar10` rejects pickles with advice."""
    folder = _batches_folder(root)
    has_batches = any(is_file(folder / f"{_BATCHES[0]}{form}") for form in ("", ".bin", ".png"))
    return has_batches or _has_class_folders(root)


def read_cifar10(root: Path) -> Source:
    """Reads CIFAR-10. The five train batches are the train split, the test batch is the test split.

    There is no validation split: `PackedImages.held_out` returns the test images. The classes become ten one-hot
    attributes, airplane to truck. Forms:

    - binary: `data_batch_1.bin` ... `test_batch.bin`, rows of one label byte and 3072 bytes CHW;
    - PNG: `data_batch_1.png` ... `test_batch.png`, each image a row of 1024 RGB pixels, labels in
      `train_lables.json` and `test_lables.json` (spelt so, or correctly);
    - folders: `train/airplane/*.png`, `test/airplane/*.png` ..., or the ten classes directly.

    Raises:
        FastvaeError: files are missing, damaged or Python pickles.
    """
    folder = _batches_folder(root)
    for suffix, read in ((".bin", _read_binary), (".png", _read_pngs)):
        present = [name for name in _BATCHES if is_file(folder / f"{name}{suffix}")]
        missing = [f"{name}{suffix}" for name in _BATCHES if name not in present]
        if present and missing:
            raise FastvaeError(f"{shown(folder)} lacks {', '.join(missing)} of CIFAR-10; unpack the archive again")
        if present:
            return _source(folder, *read(folder))
    if is_file(folder / _BATCHES[0]) or is_file(folder / "batches.meta"):
        raise FastvaeError(f"{shown(folder)} contains {_BATCHES[0]} and others: {_PICKLE_ADVICE}")
    if _has_class_folders(root):
        return dataclasses.replace(read_folder(root), kind="cifar10", native_size=SIDE)
    raise FastvaeError(
        f"{shown(root)} does not contain CIFAR-10: expected {_BATCHES[0]}.bin to {_BATCHES[-1]}.bin, the same as .png, "
        f"or folders train/{CLASSES[0]} and so on"
    )


def _source(folder: Path, pixels: list[np.ndarray], labels: list[np.ndarray]) -> Source:
    """pixels: batches of uint8 [n, 32, 32, 3]; labels: of uint8 [n] (for PNG two, of all train and test images)."""
    blocks = zip(_BATCHES, pixels, strict=True)
    names = [f"{batch}/{row}" for batch, block in blocks for row in range(len(block))]
    splits = np.full(len(names), SPLITS["train"], np.uint8)
    splits[-len(pixels[-1]) :] = SPLITS["test"]
    return Source(
        kind="cifar10",
        root=folder,
        images=np.concatenate(pixels),
        names=names,
        splits=splits,
        split_rule="the test batch is test, the rest train",
        attributes=np.eye(len(CLASSES), dtype=np.uint8)[np.concatenate(labels)],
        attribute_names=CLASSES,
        native_size=SIDE,
    )


def _read_binary(folder: Path) -> tuple[list[np.ndarray], list[np.ndarray]]:
    pixels, labels = [], []
    for name in _BATCHES:
        file = folder / f"{name}.bin"
        try:
            with open_regular(file) as binary:
                if binary.seek(0, 2) > _MAX_ROWS * (1 + _PIXEL_BYTES):
                    raise FastvaeError(f"{shown(file)} is larger than a batch of CIFAR-10; unpack the archive again")
                binary.seek(0)
                data = np.frombuffer(binary.read(), np.uint8)
        except OSError as error:
            raise FastvaeError(f"{shown(file)} cannot be read ({error.strerror or shown(str(error))})") from error
        if not data.size or data.size % (1 + _PIXEL_BYTES):
            raise FastvaeError(
                f"{shown(file)} is truncated or not CIFAR-10: {data.size} bytes are not a multiple of "
                f"{1 + _PIXEL_BYTES}; unpack the archive again"
            )
        rows = data.reshape(-1, 1 + _PIXEL_BYTES)
        labels.append(_checked_labels(rows[:, 0], file))
        pixels.append(rows[:, 1:].reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1))
    return pixels, labels


def _read_pngs(folder: Path) -> tuple[list[np.ndarray], list[np.ndarray]]:
    pixels = []
    for name in _BATCHES:
        file = folder / f"{name}.png"
        try:
            with open_regular(file) as data, Image.open(data, formats=("PNG",)) as picture:
                mode, (width, height) = picture.mode, picture.size
                # Checked before anything is decoded.
                fits = mode == "RGB" and width == SIDE * SIDE and height <= _MAX_ROWS
                rows = np.asarray(picture) if fits else None
        # Any exception of the codec means that the file is damaged.
        except Exception as error:
            raise FastvaeError(
                f"{shown(file)} cannot be decoded ({shown(str(error))}); unpack the archive again"
            ) from None
        if rows is None:
            raise FastvaeError(
                f"{shown(file)} is not a batch of CIFAR-10: expected one RGB row of {SIDE * SIDE} pixels per image; "
                f"got {mode} {width}x{height}"
            )
        pixels.append(rows.reshape(-1, SIDE, SIDE, 3))
    counts = [len(block) for block in pixels]
    train = _read_labels(folder, "train", sum(counts[:-1]))
    test = _read_labels(folder, "test", counts[-1])
    return pixels, [train, test]


def _read_labels(folder: Path, split: str, count: int) -> np.ndarray:
    candidates = [folder / f"{split}_lables.json", folder / f"{split}_labels.json"]
    file = next(filter(is_file, candidates), None)
    if file is None:
        raise FastvaeError(f"{shown(candidates[0])} is missing: it contains the labels of CIFAR-10's PNG form")
    expected = f"{shown(file)} must be a JSON list of {count} integers, one per image"
    try:
        labels = conform(parse_json(read_text(file)), tuple[int, ...], "labels")
    except Malformed as error:
        raise FastvaeError(f"{expected} ({shown(str(error))}); unpack it again") from None
    if len(labels) != count:
        raise FastvaeError(f"{expected}; got {len(labels)}; unpack it again")
    return _checked_labels(np.array(labels), file)


def _checked_labels(labels: np.ndarray, file: Path) -> np.ndarray:
    if labels.min() < 0 or labels.max() >= len(CLASSES):
        raise FastvaeError(f"{shown(file)} is damaged or not CIFAR-10: labels must be 0 to {len(CLASSES) - 1}")
    return labels.astype(np.uint8)


def _batches_folder(root: Path) -> Path:
    return next((root / name for name in _INNER_FOLDERS if is_folder(root / name)), root)


def _has_class_folders(root: Path) -> bool:
    def is_complete(folder: Path) -> bool:
        return all(is_folder(folder / name) for name in CLASSES)

    try:
        folders = [folder for folder in root.iterdir() if split_of(folder.name) is not None]
    except OSError:
        return False
    return any(map(is_complete, (root, *folders)))
