"""Reads CelebA: aligned JPEGs, the list of 40 attributes and the list of splits."""

import re
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from fastvae.data.decoders.crop import CELEBA_SIZE
from fastvae.data.sources.celeba_lists import (
    ATTRIBUTES_LIST,
    SPLITS_LIST,
    find_list,
    read_attributes,
    read_splits,
    stem_of,
)
from fastvae.data.sources.listing import SUFFIXES, list_pictures
from fastvae.data.sources.source import Source
from fastvae.errors import FastvaeError
from fastvae.files.places import is_folder, shown
from fastvae.files.reading import open_regular

_LISTS = f"{ATTRIBUTES_LIST}.txt and {SPLITS_LIST}.txt (or .csv)"
_IMAGES_FOLDERS = ("img_align_celeba", "img_align_celeba_png")
_NAME = re.compile(r"\d{6}")


def is_celeba(root: Path) -> bool:
    """Whether the folder contains pictures with CelebA's names, and the two lists are in, beside or above it."""
    if find_list(root, SPLITS_LIST) is None or find_list(root, ATTRIBUTES_LIST) is None:
        return False
    return _has_its_pictures(_images_folder(root))


def looks_like_celeba(source: Source) -> bool:
    """Whether the pictures of a plain folder have CelebA's names, and the first one CelebA's size."""
    stems = [Path(name).stem for name in source.names]
    if sum(_NAME.fullmatch(stem) is not None for stem in stems) * 2 < len(stems):
        return False
    try:
        first = next(iter(source.images))
        with BytesIO(first) if isinstance(first, bytes) else open_regular(first) as file, Image.open(file) as picture:
            return picture.size == CELEBA_SIZE
    except Exception:  # Pillow may raise anything for damaged files
        return False


def missing_lists(root: Path) -> list[str]:
    """Names, without suffix, of the missing lists."""
    return [name for name in (ATTRIBUTES_LIST, SPLITS_LIST) if find_list(root, name) is None]


def read_celeba(root: Path, *, annotations: Path | None = None) -> Source:
    """Lists CelebA or a part of it.

    Args:
        root: `img_align_celeba` (or `img_align_celeba_png`), the folder containing it, or any folder with some of its
            pictures: the 178x218 JPEGs, or pictures that were cropped or saved as PNG.
        annotations: folder with `list_attr_celeba` and `list_eval_partition`, .txt or (from Kaggle) .csv. By default
            they are searched for in `root`, in the two folders above it, and in `Anno` and `Eval` of these.

    Raises:
        FastvaeError: a list is missing or damaged, there are no pictures, or one is not in the lists.
    """
    if annotations is not None and not is_folder(annotations):
        raise FastvaeError(f"--annotations {shown(annotations)} must be a folder containing {_LISTS}")
    lists = {}
    for name in (ATTRIBUTES_LIST, SPLITS_LIST):
        file = find_list(root, name, annotations)
        if file is None:
            where = f"{shown(root)} and the two folders above it" if annotations is None else shown(annotations)
            raise FastvaeError(
                f"neither {name}.txt nor {name}.csv is in {where}; put CelebA's {_LISTS} there, "
                "give their folder (--annotations), or prepare it as a plain folder (--kind folder)"
            )
        lists[name] = file
    folder = _images_folder(root)
    listing = list_pictures(folder)
    stems = [stem_of(name.rpartition("/")[2]) for name in listing.names]
    wanted = set(stems)
    attribute_names, attributes = read_attributes(lists[ATTRIBUTES_LIST], wanted)
    splits = read_splits(lists[SPLITS_LIST], wanted)
    for table, file in ((attributes, lists[ATTRIBUTES_LIST]), (splits, lists[SPLITS_LIST])):
        unlisted = [name for name, stem in zip(listing.names, stems, strict=True) if stem not in table]
        if unlisted:
            raise FastvaeError(
                f"{len(unlisted)} of {len(stems)} pictures in {shown(folder)} are not in {file.name} "
                f"(first: {shown(unlisted[0])}); "
                "remove them, or prepare it as a plain folder (--kind folder)"
            )
    return Source(
        kind="celeba",
        root=folder,
        images=[folder / name for name in listing.names],
        names=listing.names,
        splits=np.array([splits[stem] for stem in stems], np.uint8),
        split_rule=lists[SPLITS_LIST].name,
        attributes=np.stack([attributes[stem] for stem in stems]),
        attribute_names=attribute_names,
        left_out=listing.left_out,
    )


def _images_folder(root: Path) -> Path:
    for name in _IMAGES_FOLDERS:
        for candidate in (root / name, root / "Img" / name):
            if is_folder(candidate):
                # Some archives contain a second folder with the same name.
                return candidate / name if is_folder(candidate / name) else candidate
    if _has_its_pictures(root):
        return root
    try:
        others = [folder for folder in root.iterdir() if is_folder(folder) and _has_its_pictures(folder)]
    except OSError:
        return root
    return others[0] if len(others) == 1 else root


def _has_its_pictures(folder: Path) -> bool:
    try:
        return any(_NAME.fullmatch(file.stem) and file.suffix.lower() in SUFFIXES for file in folder.iterdir())
    except OSError:
        return False
