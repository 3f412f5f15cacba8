"""Reads CIFAR-10 in its binary or python version, as one PNG per batch, or as one folder per class."""

import dataclasses
from pathlib import Path

from fastvae.data.sources.cifar_batches import read_batches
from fastvae.data.sources.cifar_files import archive_begins_with, is_archive
from fastvae.data.sources.cifar_set import SIDE, Cifar
from fastvae.data.sources.folder import read_folder, split_of
from fastvae.data.sources.source import Source
from fastvae.errors import FastvaeError
from fastvae.files.places import is_file, is_folder, shown

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_CIFAR10 = Cifar(
    kind="cifar10",
    title="CIFAR-10",
    batches=(*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"),
    labels="labels",
    label_bytes=1,
    class_count=len(CLASSES),
    classes=CLASSES,
    # A folder that was unpacked is preferred to the archive beside it.
    places=("cifar-10-batches-bin", "cifar-10-batches-py", "cifar-10-binary.tar.gz", "cifar-10-python.tar.gz"),
)
_FIRST, _LAST = _CIFAR10.batches[0], _CIFAR10.batches[-1]


def is_cifar10(root: Path) -> bool:
    """Whether the folder or archive contains CIFAR-10, in any form."""
    place = _place(root)
    if is_archive(place):
        return archive_begins_with(place, _CIFAR10.files)
    return any(is_file(place / f"{_FIRST}{form}") for form in ("", ".bin", ".png")) or _has_class_folders(root)


def read_cifar10(root: Path) -> Source:
    """Reads CIFAR-10. The five train batches are the train split, the test batch is the test split.

    There is no validation split: `PackedImages.held_out` returns the test images. The classes become ten one-hot
    attributes, airplane to truck. Forms:

    - binary: `data_batch_1.bin` ... `test_batch.bin`, rows of one label byte and 3072 bytes CHW;
    - python: `data_batch_1` ... `test_batch`, pickles, read without running any code (`plain_pickle`);
    - PNG: `data_batch_1.png` ... `test_batch.png`, each image a row of 1024 RGB pixels, labels in
      `train_lables.json` and `test_lables.json` (spelt so, or correctly);
    - `cifar-10-binary.tar.gz`, `cifar-10-python.tar.gz` or another .tar.gz with such files, unopened;
    - folders: `train/airplane/*.png`, `test/airplane/*.png` ..., or the ten classes directly.

    Args:
        root: the folder or archive, or a folder with `cifar-10-batches-bin`, `cifar-10-batches-py` or one of the two
            archives in it.

    Raises:
        FastvaeError: files are missing or damaged, or something other than CIFAR-10's arrays is in a pickle.
    """
    source = read_batches(_CIFAR10, root, _place(root))
    if source is not None:
        return source
    if _has_class_folders(root):
        return dataclasses.replace(read_folder(root), kind="cifar10", native_size=SIDE, form="class folders")
    raise FastvaeError(
        f"{shown(root)} does not contain CIFAR-10: expected {_FIRST}.bin to {_LAST}.bin, the same without suffix or as "
        f".png, or folders train/{CLASSES[0]} and so on"
    )


def _place(root: Path) -> Path:
    if is_file(root / _FIRST) or is_file(root / f"{_FIRST}.bin") or is_file(root / f"{_FIRST}.png"):
        return root
    return next((root / name for name in _CIFAR10.places if is_folder(root / name) or is_file(root / name)), root)


def _has_class_folders(root: Path) -> bool:
    def is_complete(folder: Path) -> bool:
        return all(is_folder(folder / name) for name in CLASSES)

    try:
        folders = [folder for folder in root.iterdir() if split_of(folder.name) is not None]
    except OSError:
        return False
    return any(map(is_complete, (root, *folders)))
