"""Any folder of pictures, at any depth."""

import os
from pathlib import Path, PurePosixPath

import numpy as np

from fastvae.data.packed import SPLITS
from fastvae.data.source import Source
from fastvae.errors import FastvaeError

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp"})
SPLIT_FOLDERS = {**SPLITS, "val": SPLITS["validation"]}
VALIDATION_EVERY = 20
# More folders than this are albums or identities, and one column of attributes each would only cost memory.
_MOST_CLASSES = 256


def find_pictures(root: Path) -> list[str]:
    """Paths of all pictures below `root`, relative, with slashes, sorted.

    Hidden files and folders are left out (macOS writes a hidden `._x.jpg` beside each `x.jpg`), and linked
    folders are not followed.

    Raises:
        FastvaeError: there are none.
    """
    found = []
    for folder, subfolders, files in os.walk(root):
        subfolders[:] = [name for name in subfolders if not name.startswith((".", "__MACOSX"))]
        relative = Path(folder).relative_to(root)
        for name in files:
            if not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES:
                found.append((relative / name).as_posix())
    if not found:
        raise FastvaeError(f"{root} holds no pictures ({' '.join(sorted(SUFFIXES))}); check the path")
    return sorted(found)


def read_folder(root: Path) -> Source:
    """Lists a folder of pictures.

    Splits: if two or more of the folders train, validation (or val) and test lie directly in `root`, they
    decide, and every picture must lie in one of them. Else every 20th picture in sorted order is held out for
    validation; of fewer than 20 pictures, the last.

    Attributes: if every picture lies in a folder (below its split's folder), and those are 2 to 256, the
    folders' names are classes and become one-hot attributes.

    Raises:
        FastvaeError: no pictures, or pictures outside of the split folders.
    """
    names = find_pictures(root)
    parts = [PurePosixPath(name).parts for name in names]
    tops = {part[0] for part in parts if len(part) > 1}
    split_folders = sorted(tops & SPLIT_FOLDERS.keys())
    if len(split_folders) >= 2:
        outside = [name for name, part in zip(names, parts, strict=True) if part[0] not in split_folders]
        if outside:
            raise FastvaeError(
                f"{root} has the split folders {', '.join(split_folders)}, and {len(outside)} pictures lie "
                f"outside of them (first: {outside[0]}); move or remove these"
            )
        splits = np.array([SPLIT_FOLDERS[part[0]] for part in parts], np.uint8)
        split_rule = f"folders {', '.join(split_folders)}"
    else:
        splits = _every_20th(len(names))
        split_rule = f"every {VALIDATION_EVERY}th picture in sorted order is validation, the rest train"
    if split_folders:
        parts = [part[1:] if part[0] in split_folders else part for part in parts]
    attributes, attribute_names = _classes(parts)
    return Source(
        kind="folder",
        root=root,
        images=[root / name for name in names],
        names=names,
        splits=splits,
        split_rule=split_rule,
        attributes=attributes,
        attribute_names=attribute_names,
    )


def _every_20th(count: int) -> np.ndarray:
    splits = np.full(count, SPLITS["train"], np.uint8)
    if count >= VALIDATION_EVERY:
        splits[VALIDATION_EVERY - 1 :: VALIDATION_EVERY] = SPLITS["validation"]
    elif count > 1:
        splits[-1] = SPLITS["validation"]
    return splits


def _classes(parts: list[tuple[str, ...]]) -> tuple[np.ndarray, tuple[str, ...]]:
    classes = sorted({part[0] if len(part) > 1 else "" for part in parts})
    if "" in classes or not 2 <= len(classes) <= _MOST_CLASSES:
        return np.empty((len(parts), 0), np.uint8), ()
    column = {name: number for number, name in enumerate(classes)}
    labels = [column[part[0]] for part in parts]
    return np.eye(len(classes), dtype=np.uint8)[labels], tuple(classes)
