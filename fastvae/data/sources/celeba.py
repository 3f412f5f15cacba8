"""Reads CelebA: its pictures, the list of 40 attributes and the list of splits."""

import zipfile
from pathlib import Path

import numpy as np

from fastvae.data.containers.container import Container
from fastvae.data.containers.zip_file import ZipPictures
from fastvae.data.sources.celeba_form import form_of
from fastvae.data.sources.celeba_lists import (
    ATTRIBUTES_LIST,
    SPLITS_LIST,
    ListFile,
    read_attributes,
    read_splits,
    stem_of,
)
from fastvae.data.sources.celeba_places import (
    find_lists,
    find_pictures,
    has_its_name,
    has_its_pictures,
    is_one_of_its_lists,
    other_lists,
)
from fastvae.data.sources.listing import NOT_PICTURES, Listing, list_pictures, named
from fastvae.data.sources.source import Source
from fastvae.errors import FastvaeError
from fastvae.files.places import is_file, is_folder, shown

_LISTS = f"{ATTRIBUTES_LIST}.txt and {SPLITS_LIST}.txt (or .csv)"
_REPEATED = "of which another file has the number"
# As for broken pictures: a few are somebody's own files, more are another data set or a list that was cut off.
_UNLISTED_LIMIT = 0.01


def is_celeba(root: Path) -> bool:
    """Whether the folder or zip file contains pictures with CelebA's names, and the two lists are in or near it."""
    pictures, _ = find_pictures(root)
    if len(find_lists(root, pictures)) < 2:
        return False
    if is_file(pictures):
        return zipfile.is_zipfile(pictures) and any(map(has_its_name, ZipPictures(pictures).names))
    return has_its_pictures(pictures)


def read_celeba(root: Path, *, annotations: Path | None = None) -> Source:
    """Lists CelebA or a part of it.

    Args:
        root: any folder of the official data set, of Kaggle's, or with some of the pictures: the 178x218 JPEGs
            (`img_align_celeba`) or PNGs (`img_align_celeba_png`), pictures that were cropped or resized before, or
            those in the wild (`img_celeba`); or a zip file of these, unopened, with or without the lists.
        annotations: folder with `list_attr_celeba` and `list_eval_partition`, .txt or (from Kaggle) .csv. By default
            they are searched for in the zip file, in `root` and the folder with the pictures, in the three folders
            above each, and in `Anno` and `Eval` of all these.

    Returns:
        The pictures in the order of their names. Those that are not in the lists are left out.

    Raises:
        FastvaeError: a list is missing or damaged, there are no pictures, or more than 1 % of them are not in the
            lists.
    """
    if annotations is not None and not is_folder(annotations):
        raise FastvaeError(f"--annotations {shown(annotations)} must be a folder containing {_LISTS}")
    place, unused = find_pictures(root)
    lists = find_lists(root, place, annotations)
    for name in (ATTRIBUTES_LIST, SPLITS_LIST):
        if name not in lists:
            where = f"{shown(root)} and the three folders above it" if annotations is None else shown(annotations)
            raise FastvaeError(
                f"neither {name}.txt nor {name}.csv is in {where}; put CelebA's {_LISTS} there, "
                "give their folder (--annotations), or prepare it as a plain folder (--kind folder)"
            )
    container = ZipPictures(place) if is_file(place) else None
    listing = list_pictures(place) if container is None else Listing(container.names, container.left_out)
    names, stems = _one_of_each(listing)
    attribute_names, attributes = read_attributes(lists[ATTRIBUTES_LIST], set(stems))
    splits = read_splits(lists[SPLITS_LIST], set(stems))
    for table, file in ((attributes, lists[ATTRIBUTES_LIST]), (splits, lists[SPLITS_LIST])):
        unlisted = [name for name, stem in zip(names, stems, strict=True) if stem not in table.rows]
        if len(unlisted) > _UNLISTED_LIMIT * len(stems):
            raise FastvaeError(
                f"{len(unlisted)} of {len(stems)} pictures in {shown(place)} are not in {file.name} "
                f"(first: {shown(unlisted[0])}); "
                "remove them, or prepare it as a plain folder (--kind folder)"
            )
        for name in unlisted:
            listing.leave_out(name, f"not in {file.name}")
        kept = [(name, stem) for name, stem in zip(names, stems, strict=True) if stem in table.rows]
        names, stems = [name for name, _ in kept], [stem for _, stem in kept]
    _drop_lists(listing)
    images: list[Path] | Container = [place / name for name in names] if container is None else container.only(names)
    form, warnings = form_of(images, place.stem)
    return Source(
        kind="celeba",
        root=place,
        images=images,
        names=names,
        splits=np.array([splits.rows[stem] for stem in stems], np.uint8),
        split_rule=lists[SPLITS_LIST].name,
        attributes=np.stack([attributes.rows[stem] for stem in stems]),
        attribute_names=attribute_names,
        left_out=listing.left_out,
        form=form,
        notes=(
            f"pictures from {_below(root, place)}; attributes from {_below(root, lists[ATTRIBUTES_LIST].place)}; "
            f"splits from {_below(root, lists[SPLITS_LIST].place)}",
            *_absent(splits.others, splits.first_others, lists[SPLITS_LIST]),
            *_unused(root, unused, lists),
        ),
        warnings=warnings,
    )


def _one_of_each(listing: Listing) -> tuple[list[str], list[str]]:
    """The names of the pictures and their names in the lists; of two with the same number, the first."""
    first: dict[str, str] = {}
    for name in listing.names:
        stem = stem_of(name.rpartition("/")[2])
        if first.setdefault(stem, name) != name:
            listing.leave_out(name, _REPEATED)
    return list(first.values()), list(first)


def _drop_lists(listing: Listing) -> None:
    """Lists that lie beside the pictures were not left out."""
    others = [name for name in listing.left_out.pop(NOT_PICTURES, []) if not is_one_of_its_lists(name)]
    if others:
        listing.left_out[NOT_PICTURES] = others


def _absent(count: int, first: list[str], file: ListFile) -> list[str]:
    return [f"{count:,} pictures of {file.name} are not there ({named(first, count)})"] if count else []


def _unused(root: Path, pictures: list[Path], lists: dict[str, ListFile]) -> list[str]:
    names = [*(_below(root, path) for path in pictures), *map(shown, other_lists(lists))]
    return [f"not used: {', '.join(names)}"] if names else []


def _below(root: Path, path: Path) -> str:
    """A path as it is found from `root`."""
    if path == root:
        return shown(path.name)
    return shown(path.relative_to(root)) if path.is_relative_to(root) else shown(path)
