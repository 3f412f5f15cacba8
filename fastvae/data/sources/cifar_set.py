"""The two data sets of CIFAR, and what their versions have in common."""

from dataclasses import dataclass

import numpy as np

from fastvae.errors import FastvaeError

SIDE = 32
PIXELS = 3 * SIDE * SIDE
# CIFAR-10 has 10,000 images a batch, CIFAR-100 50,000.
MAX_ROWS = 65536
LABELS_OF_PNGS = tuple(f"{split}_{word}.json" for word in ("lables", "labels") for split in ("train", "test"))
AGAIN = "unpack the archive again"
# Of the binary version, the python version and one PNG per batch.
_SUFFIXES = (".bin", "", ".png")


@dataclass(frozen=True)
class Cifar:
    """One of the two data sets.

    Attributes:
        kind: "cifar10" or "cifar100".
        title: for messages.
        batches: names of the files without suffix; the last one is the test split.
        labels: key of the labels in the python version.
        label_bytes: number of label bytes in a row of the binary version, of which the last one is read.
        class_count: number of classes.
        classes: their names, if they are not in a file.
        class_files: files with their names, in the python and in the binary version.
        places: folders and archives in a folder in which the files may lie; the first one is read.
    """

    kind: str
    title: str
    batches: tuple[str, ...]
    labels: str
    label_bytes: int
    class_count: int
    classes: tuple[str, ...] = ()
    class_files: tuple[str, ...] = ()
    places: tuple[str, ...] = ()

    @property
    def files(self) -> list[str]:
        """The names of all files, in all versions."""
        batches = [f"{name}{suffix}" for suffix in _SUFFIXES for name in self.batches]
        return [*batches, *LABELS_OF_PNGS, *self.class_files]


def upright(rows: np.ndarray) -> np.ndarray:
    """uint8 [n, 3072], planes of red, green and blue -> uint8 [n, 32, 32, 3]."""
    return rows.reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1)


def checked_labels(labels: np.ndarray, cifar: Cifar, file: str) -> np.ndarray:
    """Labels as uint8 [n].

    Args:
        labels: integers [n], of which there is at least one.
        cifar: the data set.
        file: where they come from, for the error.

    Raises:
        FastvaeError: they are out of range.
    """
    if labels.min() < 0 or labels.max() >= cifar.class_count:
        raise FastvaeError(f"{file} is damaged or not {cifar.title}: labels must be 0 to {cifar.class_count - 1}")
    return labels.astype(np.uint8)
