"""CIFAR-10 in its public binary form, as one PNG a batch, or as one folder a class."""

import dataclasses
import json
from pathlib import Path

import numpy as np
from PIL import Image

from fastvae.data.folder import SPLIT_FOLDERS, read_folder
from fastvae.data.packed import SPLITS
from fastvae.data.source import Source
from fastvae.errors import FastvaeError

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SIDE = 32
_PIXEL_BYTES = 3 * SIDE * SIDE
_TRAIN_BATCHES = tuple(f"data_batch_{number}" for number in range(1, 6))
_BATCHES = (*_TRAIN_BATCHES, "test_batch")
_INNER_FOLDERS = ("cifar-10-batches-bin", "cifar-10-batches-py")
_PICKLE_ADVICE = (
    "these are Python pickles, which fastvae never loads because loading one can run any code; "
    "take the binary version, cifar-10-binary.tar.gz"
)


def is_cifar10(root: Path) -> bool:
    """Whether the folder holds CIFAR-10 in a form that is read or, for pickles, refused with advice."""
    folder = _batches_folder(root)
    has_batches = any((folder / f"{_BATCHES[0]}{form}").is_file() for form in ("", ".bin", ".png"))
    return has_batches or _has_class_folders(root)


def read_cifar10(root: Path) -> Source:
    """Reads CIFAR-10. The five train batches are the train split, the test batch is the test split.

    There is no validation split: `PackedImages.held_out` gives the test images. The classes become ten one-hot
    attributes, airplane to truck. Forms:

    - binary: `data_batch_1.bin` ... `test_batch.bin`, rows of one label byte and 3072 bytes CHW;
    - PNG: `data_batch_1.png` ... `test_batch.png`, one image a row of 1024 RGB pixels, labels in
      `train_lables.json` and `test_lables.json` (so spelt; the right spelling is taken too);
    - folders: `train/airplane/*.png`, `test/airplane/*.png` ..., or the ten classes directly.

    Raises:
        FastvaeError: files are missing, damaged or Python pickles.
    """
    folder = _batches_folder(root)
    for suffix, read in ((".bin", _read_binary), (".png", _read_pngs)):
        present = [name for name in _BATCHES if (folder / f"{name}{suffix}").is_file()]
        missing = [f"{name}{suffix}" for name in _BATCHES if name not in present]
        if present and missing:
            raise FastvaeError(f"{folder} lacks {', '.join(missing)} of CIFAR-10; unpack the archive again")
        if present:
            return _source(folder, *read(folder))
    if (folder / _BATCHES[0]).is_file() or (folder / "batches.meta").is_file():
        raise FastvaeError(f"{folder} holds {_BATCHES[0]} and its like: {_PICKLE_ADVICE}")
    if _has_class_folders(root):
        return dataclasses.replace(read_folder(root), kind="cifar10", native_size=SIDE)
    raise FastvaeError(
        f"{root} holds no CIFAR-10: expected {_BATCHES[0]}.bin to {_BATCHES[-1]}.bin, the same as .png, "
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
        data = np.fromfile(file, np.uint8)
        if not data.size or data.size % (1 + _PIXEL_BYTES):
            raise FastvaeError(
                f"{file} is truncated or not CIFAR-10: {data.size} bytes are no multiple of "
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
            with Image.open(file, formats=("PNG",)) as picture:
                rows = np.asarray(picture)
        # Whatever the codec raises, the file is damaged.
        except Exception as error:
            raise FastvaeError(f"{file} cannot be decoded ({error}); unpack the archive again") from None
        if rows.dtype != np.uint8 or rows.shape[1:] != (SIDE * SIDE, 3):
            raise FastvaeError(
                f"{file} is no batch of CIFAR-10: expected RGB rows of {SIDE * SIDE} pixels, one an image; "
                f"got {rows.dtype} {list(rows.shape)}"
            )
        pixels.append(rows.reshape(-1, SIDE, SIDE, 3))
    counts = [len(block) for block in pixels]
    train = _read_labels(folder, "train", sum(counts[:-1]))
    test = _read_labels(folder, "test", counts[-1])
    return pixels, [train, test]


def _read_labels(folder: Path, split: str, count: int) -> np.ndarray:
    candidates = [folder / f"{split}_lables.json", folder / f"{split}_labels.json"]
    file = next((candidate for candidate in candidates if candidate.is_file()), None)
    if file is None:
        raise FastvaeError(f"{candidates[0]} is missing: the PNG form of CIFAR-10 has its labels there")
    try:
        labels = np.array(json.loads(file.read_text("utf-8")))
    except ValueError:
        labels = np.empty(0)
    if labels.shape != (count,) or labels.dtype.kind != "i":
        raise FastvaeError(f"{file} must be a JSON list of {count} numbers, one an image; unpack it again")
    return _checked_labels(labels, file)


def _checked_labels(labels: np.ndarray, file: Path) -> np.ndarray:
    if labels.min() < 0 or labels.max() >= len(CLASSES):
        raise FastvaeError(f"{file} is damaged or not CIFAR-10: it has labels beyond 0 to {len(CLASSES) - 1}")
    return labels.astype(np.uint8)


def _batches_folder(root: Path) -> Path:
    return next((root / name for name in _INNER_FOLDERS if (root / name).is_dir()), root)


def _has_class_folders(root: Path) -> bool:
    def is_complete(folder: Path) -> bool:
        return all((folder / name).is_dir() for name in CLASSES)

    return is_complete(root) or any(is_complete(root / name) for name in SPLIT_FOLDERS)
