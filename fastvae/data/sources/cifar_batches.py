"""Reads the batches of CIFAR-10 and CIFAR-100: the binary version, the python version, and one PNG per batch."""

import io
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fastvae.data.packed import SPLITS
from fastvae.data.sources.cifar_files import CifarFiles
from fastvae.data.sources.plain_pickle import parse_pickle
from fastvae.data.sources.source import Source
from fastvae.errors import FastvaeError
from fastvae.files.places import shown
from fastvae.files.reading import Malformed, conform, parse_json

SIDE = 32
_PIXELS = 3 * SIDE * SIDE
# CIFAR-10 has 10,000 images a batch, CIFAR-100 50,000.
_MAX_ROWS = 65536
_LABELS_PNG = tuple(f"{split}_{word}.json" for word in ("lables", "labels") for split in ("train", "test"))
_AGAIN = "unpack the archive again"


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
    """

    kind: str
    title: str
    batches: tuple[str, ...]
    labels: str
    label_bytes: int
    class_count: int
    classes: tuple[str, ...] = ()
    class_files: tuple[str, ...] = ()

    @property
    def files(self) -> list[str]:
        """The names of all files, in all versions."""
        batches = [f"{name}{suffix}" for suffix in _VERSIONS for name in self.batches]
        return [*batches, *_LABELS_PNG, *self.class_files]


def read_batches(cifar: Cifar, root: Path, place: Path) -> Source | None:
    """Reads a folder or archive with the batches; None if there are none.

    Args:
        cifar: which data set.
        root: what was given.
        place: the folder or archive with the batches, which is `root` or in it.

    Raises:
        FastvaeError: files are missing or damaged.
    """
    files = CifarFiles(place, cifar.files)
    for suffix, (version, read) in _VERSIONS.items():
        present = [name for name in cifar.batches if f"{name}{suffix}" in files.names]
        missing = [f"{name}{suffix}" for name in cifar.batches if name not in present]
        if present and missing:
            raise FastvaeError(f"{shown(place)} lacks {', '.join(missing)} of {cifar.title}; {_AGAIN}")
        if present:
            pixels, labels = read(cifar, files)
            source = _source(cifar, files, version, pixels, labels)
            return source if place == root else replace(source, notes=(f"read from {shown(place.relative_to(root))}",))
    return None


def _source(
    cifar: Cifar, files: CifarFiles, version: str, pixels: list[np.ndarray], labels: list[np.ndarray]
) -> Source:
    """pixels: batches of uint8 [n, 32, 32, 3]; labels: of uint8 [n] (for PNG two, of all train and test images)."""
    blocks = zip(cifar.batches, pixels, strict=True)
    names = [f"{batch}/{row}" for batch, block in blocks for row in range(len(block))]
    splits = np.full(len(names), SPLITS["train"], np.uint8)
    splits[-len(pixels[-1]) :] = SPLITS["test"]
    return Source(
        kind=cifar.kind,
        root=files.root,
        images=np.concatenate(pixels),
        names=names,
        splits=splits,
        split_rule=f"{cifar.batches[-1]} is test, the rest train",
        attributes=np.eye(cifar.class_count, dtype=np.uint8)[np.concatenate(labels)],
        attribute_names=cifar.classes or _class_names(cifar, files),
        native_size=SIDE,
        form=version,
    )


def _read_binary(cifar: Cifar, files: CifarFiles) -> tuple[list[np.ndarray], list[np.ndarray]]:
    pixels, labels = [], []
    row_bytes = cifar.label_bytes + _PIXELS
    for batch in cifar.batches:
        name = f"{batch}.bin"
        data = np.frombuffer(files.read(name), np.uint8)
        if not data.size or data.size % row_bytes:
            raise FastvaeError(
                f"{files.shown(name)} is truncated or not {cifar.title}: {data.size} bytes are not a multiple of "
                f"{row_bytes}; {_AGAIN}"
            )
        if data.size > _MAX_ROWS * row_bytes:
            raise FastvaeError(f"{files.shown(name)} is larger than a batch of {cifar.title}; {_AGAIN}")
        rows = data.reshape(-1, row_bytes)
        labels.append(_checked_labels(rows[:, cifar.label_bytes - 1], cifar, files.shown(name)))
        pixels.append(_upright(rows[:, cifar.label_bytes :]))
    return pixels, labels


def _read_pickles(cifar: Cifar, files: CifarFiles) -> tuple[list[np.ndarray], list[np.ndarray]]:
    pixels, labels = [], []
    for name in cifar.batches:
        fields = _pickled_fields(files, name)
        data, numbers = fields.get("data"), fields.get(cifar.labels)
        try:
            if not isinstance(data, np.ndarray) or data.ndim != 2 or data.shape[1] != _PIXELS:
                raise Malformed(f"'data' must be a uint8 array of {_PIXELS} columns")
            numbers = conform(numbers, list[int], cifar.labels)
            if not 1 <= len(numbers) <= _MAX_ROWS or len(numbers) != len(data):
                raise Malformed(f"{len(data)} images and {len(numbers)} labels")
        except Malformed as error:
            raise FastvaeError(
                f"{files.shown(name)} is damaged or not {cifar.title} ({shown(str(error))}); {_AGAIN}"
            ) from None
        labels.append(_checked_labels(np.array(numbers), cifar, files.shown(name)))
        pixels.append(_upright(data))
    return pixels, labels


def _pickled_fields(files: CifarFiles, name: str) -> dict[str, Any]:
    """The dictionary in a file of the python version; Python 2's keys are bytes."""
    try:
        value = parse_pickle(files.read(name))
        if not isinstance(value, dict):
            raise Malformed(f"expected a dictionary; got {type(value).__name__}")
    except Malformed as error:
        raise FastvaeError(
            f"{files.shown(name)} is damaged or not a batch of CIFAR ({error}); {_AGAIN}, or use the binary version"
        ) from None
    return {key.decode("latin-1") if isinstance(key, bytes) else str(key): item for key, item in value.items()}


def _read_pngs(cifar: Cifar, files: CifarFiles) -> tuple[list[np.ndarray], list[np.ndarray]]:
    pixels = []
    for batch in cifar.batches:
        name = f"{batch}.png"
        try:
            with Image.open(io.BytesIO(files.read(name)), formats=("PNG",)) as picture:
                mode, (width, height) = picture.mode, picture.size
                # Checked before anything is decoded.
                fits = mode == "RGB" and width == SIDE * SIDE and height <= _MAX_ROWS
                rows = np.asarray(picture) if fits else None
        except FastvaeError:
            raise
        # Any exception of the codec means that the file is damaged.
        except Exception as error:
            raise FastvaeError(f"{files.shown(name)} cannot be decoded ({shown(str(error))}); {_AGAIN}") from None
        if rows is None:
            raise FastvaeError(
                f"{files.shown(name)} is not a batch of {cifar.title}: expected one RGB row of {SIDE * SIDE} pixels "
                f"per image; got {mode} {width}x{height}"
            )
        pixels.append(rows.reshape(-1, SIDE, SIDE, 3))
    counts = [len(block) for block in pixels]
    train = _read_json_labels(cifar, files, "train", sum(counts[:-1]))
    test = _read_json_labels(cifar, files, "test", counts[-1])
    return pixels, [train, test]


def _read_json_labels(cifar: Cifar, files: CifarFiles, split: str, count: int) -> np.ndarray:
    candidates = [name for name in _LABELS_PNG if name.startswith(split)]
    name = next((name for name in candidates if name in files.names), None)
    if name is None:
        raise FastvaeError(
            f"{files.shown(candidates[0])} is missing: it contains the labels of {cifar.title}'s PNG form"
        )
    expected = f"{files.shown(name)} must be a JSON list of {count} integers, one per image"
    try:
        labels = conform(parse_json(files.read(name)), tuple[int, ...], "labels")
    except Malformed as error:
        raise FastvaeError(f"{expected} ({shown(str(error))}); unpack it again") from None
    if len(labels) != count:
        raise FastvaeError(f"{expected}; got {len(labels)}; unpack it again")
    return _checked_labels(np.array(labels), cifar, files.shown(name))


def _upright(rows: np.ndarray) -> np.ndarray:
    """uint8 [n, 3072], planes of red, green and blue -> uint8 [n, 32, 32, 3]."""
    return rows.reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1)


def _checked_labels(labels: np.ndarray, cifar: Cifar, file: str) -> np.ndarray:
    if labels.min() < 0 or labels.max() >= cifar.class_count:
        raise FastvaeError(f"{file} is damaged or not {cifar.title}: labels must be 0 to {cifar.class_count - 1}")
    return labels.astype(np.uint8)


def _class_names(cifar: Cifar, files: CifarFiles) -> tuple[str, ...]:
    name = next((name for name in cifar.class_files if name in files.names), None)
    if name is None:
        raise FastvaeError(
            f"{shown(files.root)} lacks {' or '.join(cifar.class_files)}, which names {cifar.title}'s classes; {_AGAIN}"
        )
    if name.endswith(".txt"):
        names = files.read(name).decode("utf-8", "replace").split()
    else:
        names = _pickled_fields(files, name).get(f"{cifar.labels.removesuffix('labels')}label_names")
        names = [item.decode("latin-1") if isinstance(item, bytes) else item for item in names or ()]
    is_complete = len(set(map(str, names))) == cifar.class_count
    if not is_complete or not all(isinstance(item, str) and 0 < len(item) < 100 for item in names):
        raise FastvaeError(f"{files.shown(name)} must contain the {cifar.class_count} names of the classes; {_AGAIN}")
    return tuple(map(shown, names))


_Read = Callable[[Cifar, CifarFiles], tuple[list[np.ndarray], list[np.ndarray]]]
_VERSIONS: dict[str, tuple[str, _Read]] = {
    ".bin": ("binary version", _read_binary),
    ".png": ("one PNG per batch", _read_pngs),
    "": ("python version", _read_pickles),
}
