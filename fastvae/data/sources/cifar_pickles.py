"""Reads CIFAR's python version: a pickled dictionary per batch."""

from typing import Any

import numpy as np

from fastvae.data.sources.cifar_files import CifarFiles
from fastvae.data.sources.cifar_set import AGAIN, MAX_ROWS, PIXELS, Cifar, checked_labels, upright
from fastvae.data.sources.plain_pickle import parse_pickle
from fastvae.errors import FastvaeError
from fastvae.files.places import shown
from fastvae.files.reading import Malformed, conform


def read_pickles(cifar: Cifar, files: CifarFiles) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Pixels, uint8 [n, 32, 32, 3], and labels, uint8 [n], of each batch.

    Raises:
        FastvaeError: a file is damaged, or has something else in it.
    """
    pixels, labels = [], []
    for name in cifar.batches:
        fields = pickled_fields(files, name)
        data, numbers = fields.get("data"), fields.get(cifar.labels)
        try:
            if not isinstance(data, np.ndarray) or data.ndim != 2 or data.shape[1] != PIXELS:
                raise Malformed(f"'data' must be a uint8 array of {PIXELS} columns")
            numbers = conform(numbers, list[int], cifar.labels)
            if not 1 <= len(numbers) <= MAX_ROWS or len(numbers) != len(data):
                raise Malformed(f"{len(data)} images and {len(numbers)} labels")
        except Malformed as error:
            raise FastvaeError(
                f"{files.shown(name)} is damaged or not {cifar.title} ({shown(str(error))}); {AGAIN}"
            ) from None
        labels.append(checked_labels(np.array(numbers), cifar, files.shown(name)))
        pixels.append(upright(data))
    return pixels, labels


def pickled_fields(files: CifarFiles, name: str) -> dict[str, Any]:
    """The dictionary in a file of the python version; Python 2's keys are bytes.

    Raises:
        FastvaeError: the file is damaged, or has something else in it.
    """
    try:
        value = parse_pickle(files.read(name))
        if not isinstance(value, dict):
            raise Malformed(f"expected a dictionary; got {type(value).__name__}")
    except Malformed as error:
        raise FastvaeError(
            f"{files.shown(name)} is damaged or not a batch of CIFAR ({error}); {AGAIN}, or use the binary version"
        ) from None
    return {key.decode("latin-1") if isinstance(key, bytes) else str(key): item for key, item in value.items()}
