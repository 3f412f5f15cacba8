"""Reads the batches of CIFAR-10 and CIFAR-100: the binary version, the python version, and one PNG per batch."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from fastvae.data.packed import SPLITS
from fastvae.data.sources.cifar_files import CifarFiles
from fastvae.data.sources.cifar_pickles import pickled_fields, read_pickles
from fastvae.data.sources.cifar_pngs import read_pngs
from fastvae.data.sources.cifar_set import AGAIN, MAX_ROWS, PIXELS, SIDE, Cifar, checked_labels, upright
from fastvae.data.sources.source import Source
from fastvae.errors import FastvaeError
from fastvae.files.places import is_file, is_folder, shown


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
            raise FastvaeError(f"{shown(place)} lacks {', '.join(missing)} of {cifar.title}; {AGAIN}")
        if present:
            pixels, labels = read(cifar, files)
            return replace(_source(cifar, files, version, pixels, labels), notes=_notes(cifar, root, files, suffix))
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


def _notes(cifar: Cifar, root: Path, files: CifarFiles, suffix: str) -> tuple[str, ...]:
    """Where the batches were, and which others are there."""
    notes = () if files.root == root else (f"read from {shown(files.root.relative_to(root))}",)
    places = (root / name for name in cifar.places)
    unused = [place.name for place in places if place != files.root and (is_folder(place) or is_file(place))]
    for other in _VERSIONS.keys() - {suffix}:
        unused += [name for batch in cifar.batches if (name := f"{batch}{other}") in files.names]
    return (*notes, f"not used: {', '.join(sorted(unused))}") if unused else notes


def _read_binary(cifar: Cifar, files: CifarFiles) -> tuple[list[np.ndarray], list[np.ndarray]]:
    pixels, labels = [], []
    row_bytes = cifar.label_bytes + PIXELS
    for batch in cifar.batches:
        name = f"{batch}.bin"
        data = np.frombuffer(files.read(name), np.uint8)
        if not data.size or data.size % row_bytes:
            raise FastvaeError(
                f"{files.shown(name)} is truncated or not {cifar.title}: {data.size} bytes are not a multiple of "
                f"{row_bytes}; {AGAIN}"
            )
        if data.size > MAX_ROWS * row_bytes:
            raise FastvaeError(f"{files.shown(name)} is larger than a batch of {cifar.title}; {AGAIN}")
        rows = data.reshape(-1, row_bytes)
        labels.append(checked_labels(rows[:, cifar.label_bytes - 1], cifar, files.shown(name)))
        pixels.append(upright(rows[:, cifar.label_bytes :]))
    return pixels, labels


def _class_names(cifar: Cifar, files: CifarFiles) -> tuple[str, ...]:
    name = next((name for name in cifar.class_files if name in files.names), None)
    if name is None:
        raise FastvaeError(
            f"{shown(files.root)} lacks {' or '.join(cifar.class_files)}, which names {cifar.title}'s classes; {AGAIN}"
        )
    if name.endswith(".txt"):
        names = files.read(name).decode("utf-8", "replace").split()
    else:
        names = pickled_fields(files, name).get(f"{cifar.labels.removesuffix('labels')}label_names")
        names = names if isinstance(names, list) else []
        names = [item.decode("latin-1") if isinstance(item, bytes) else item for item in names]
    are_names = all(isinstance(item, str) and 0 < len(item) < 100 for item in names)
    if not are_names or not len(names) == len(set(names)) == cifar.class_count:
        raise FastvaeError(f"{files.shown(name)} must contain the {cifar.class_count} names of the classes; {AGAIN}")
    return tuple(map(shown, names))


_Read = Callable[[Cifar, CifarFiles], tuple[list[np.ndarray], list[np.ndarray]]]
_VERSIONS: dict[str, tuple[str, _Read]] = {
    ".bin": ("binary version", _read_binary),
    ".png": ("one PNG per batch", read_pngs),
    "": ("python version", read_pickles),
}
