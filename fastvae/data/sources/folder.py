"""Reads any folder of pictures, at any depth."""

import re
from pathlib import Path

import numpy as np

from fastvae.data.containers.container import Container
from fastvae.data.packed import SPLITS
from fastvae.data.sources.listing import list_pictures, named
from fastvae.data.sources.source import Source
from fastvae.errors import FastvaeError
from fastvae.files.places import shown

VALIDATION_EVERY = 20
# More folders than this are albums or identities, not classes; an attribute for each would waste memory.
_MAX_CLASSES = 256
# Folders of splits that a data set's description names.
_NAMED = 20
_SPLIT_FOLDERS = {
    "train": re.compile(r"train(ing)?"),
    "validation": re.compile(r"val(id(ation)?)?|dev|eval(uation)?|hold[-_ ]?out"),
    "test": re.compile(r"test(ing)?"),
}
_SPLIT_ENDING = re.compile(r"[-_ ]?(set|data|images|imgs|\d*)")
# Words of a folder's name: img_train, trainA.
_WORDS = re.compile(r"[A-Z]?[a-z]+|\d+|[A-Z]+")

_Parts = list[tuple[str, ...]]


def split_of(folder: str) -> int | None:
    """The split that a folder's name stands for, 0 train, 1 validation or 2 test, or None.

    Case-insensitive: train, training; val, valid, validation, dev, eval, evaluation, holdout; test, testing; optionally
    followed by set, data, images or a number, as in `test_set` and `val2017`.
    """
    for split, name in _SPLIT_FOLDERS.items():
        match = name.match(folder.lower())
        if match and _SPLIT_ENDING.fullmatch(folder.lower(), match.end()):
            return SPLITS[split]
    return None


def read_folder(root: Path) -> Source:
    """Lists a folder of pictures.

    Folders that contain everything else, as in archives, are ignored.

    Splits: if the pictures are in folders of two or more splits (`split_of`), the folders decide, and every picture
    must be in one of them. They may be one level lower, below the classes, if that holds for all pictures. Otherwise
    every 20th picture in sorted order is held out for validation; of fewer than 20 pictures, the last.

    Attributes: if every picture is in a folder other than a split's, and there are 2 to 256 such folders, their names
    are the classes and become one-hot attributes.

    Raises:
        FastvaeError: no pictures, or pictures outside the split folders.
    """
    listing = list_pictures(root)
    return arranged("folder", root, [root / name for name in listing.names], listing.names, listing.left_out)


def arranged(
    kind: str, root: Path, images: list[Path] | Container, names: list[str], left_out: dict[str, list[str]]
) -> Source:
    """Pictures with the splits and classes that their names say, as described in `read_folder`."""
    parts = _without_common([tuple(name.split("/")) for name in names])
    level = _split_level(parts)
    if level is None:
        splits = every_20th(len(names))
        split_rule = f"every {VALIDATION_EVERY}th picture in sorted order is validation, the rest train"
        # A single split folder is neither a split nor a class, unless it contains pictures like the classes beside it.
        fewest = 2 if all(split_of(part[0]) is not None for part in parts if len(part) > 1) else 3
        parts = [part[1:] if len(part) >= fewest and split_of(part[0]) is not None else part for part in parts]
        warnings = _of_likely_splits(parts)
    else:
        warnings = ()
        folders = sorted({part[level] for part in parts if _split_at(part, level) is not None})
        outside = [name for name, part in zip(names, parts, strict=True) if _split_at(part, level) is None]
        if outside:
            raise FastvaeError(
                f"{shown(root)} has the split folders {', '.join(map(shown, folders))}, but {len(outside)} pictures "
                f"are outside them (first: {shown(outside[0])}); move or remove these"
            )
        splits = np.array([_split_at(part, level) for part in parts], np.uint8)
        more = f" and {len(folders) - _NAMED} more" if len(folders) > _NAMED else ""
        split_rule = f"folders {', '.join(map(shown, folders[:_NAMED]))}{more}"
        parts = [part[:level] + part[level + 1 :] for part in parts]
    attributes, attribute_names = _classes(_without_common(parts))
    notes = () if attribute_names else _why_no_classes(names, _without_common(parts))
    return Source(
        kind=kind,
        root=root,
        images=images,
        names=names,
        splits=splits,
        split_rule=split_rule,
        attributes=attributes,
        attribute_names=attribute_names,
        left_out=left_out,
        notes=notes,
        warnings=warnings,
    )


def _of_likely_splits(parts: _Parts) -> tuple[str, ...]:
    """A warning of folders whose names suggest splits but are not read as such, since train_station may be a class."""
    likely: dict[int, str] = {}
    for name in sorted({part[0] for part in parts if len(part) > 1}):
        for word in _WORDS.findall(name):
            if (split := split_of(word)) is not None:
                likely.setdefault(split, name)
    if len(likely) < 2:
        return ()
    folders = " and ".join(shown(name) for name in likely.values())
    return (f"the folders {folders} are not read as splits; if they are splits, rename them to train, val and test",)


def _without_common(parts: _Parts) -> _Parts:
    """The paths without their common leading folders."""
    while len(parts[0]) > 1 and all(len(part) > 1 and part[0] == parts[0][0] for part in parts):
        parts = [part[1:] for part in parts]
    return parts


def _split_at(part: tuple[str, ...], level: int) -> int | None:
    return split_of(part[level]) if len(part) > level + 1 else None


def _split_level(parts: _Parts) -> int | None:
    """The level of the split folders, 0 or 1, or None."""
    for level in (0, 1):
        found = {_split_at(part, level) for part in parts}
        if len(found - {None}) >= 2 and (level == 0 or None not in found):
            return level
    return None


def every_20th(count: int) -> np.ndarray:
    """uint8 [count]: every 20th picture is held out for validation; of fewer than 20, the last."""
    splits = np.full(count, SPLITS["train"], np.uint8)
    if count >= VALIDATION_EVERY:
        splits[VALIDATION_EVERY - 1 :: VALIDATION_EVERY] = SPLITS["validation"]
    elif count > 1:
        splits[-1] = SPLITS["validation"]
    return splits


def _classes(parts: _Parts) -> tuple[np.ndarray, tuple[str, ...]]:
    classes = sorted({part[0] if len(part) > 1 else "" for part in parts})
    if "" in classes or not 2 <= len(classes) <= _MAX_CLASSES:
        return np.empty((len(parts), 0), np.uint8), ()
    column = {name: number for number, name in enumerate(classes)}
    labels = [column[part[0]] for part in parts]
    return np.eye(len(classes), dtype=np.uint8)[labels], tuple(map(shown, classes))


def _why_no_classes(names: list[str], parts: _Parts) -> tuple[str, ...]:
    """What keeps the folders from being classes, if there are several."""
    folders = {part[0] for part in parts if len(part) > 1}
    if len(folders) > _MAX_CLASSES:
        return (
            f"{len(folders):,} folders are read as albums, not as classes, of which there are at most {_MAX_CLASSES}",
        )
    outside = [name for name, part in zip(names, parts, strict=True) if len(part) == 1]
    if len(folders) < 2 or not outside:
        return ()
    first = named(outside, len(outside))
    return (f"{len(folders)} folders are not read as classes, since {len(outside):,} pictures are in none ({first})",)
