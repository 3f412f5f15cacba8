"""Reads CelebA: its pictures, the list of 40 attributes and the list of splits."""

from pathlib import Path

import numpy as np

from fastvae.data.containers.archives import check_not_empty
from fastvae.data.containers.container import Container
from fastvae.data.sources.celeba_form import form_of
from fastvae.data.sources.celeba_lists import (
    ATTRIBUTES_LIST,
    SPLITS_LIST,
    ListFile,
    read_attributes,
    read_splits,
    stem_of,
)
from fastvae.data.sources.celeba_places import Places, find_places, is_one_of_its_lists
from fastvae.data.sources.listing import NOT_PICTURES, Listing, list_pictures, named
from fastvae.data.sources.source import Source
from fastvae.errors import FastvaeError
from fastvae.files.places import is_folder, shown

_LISTS = f"{ATTRIBUTES_LIST}.txt and {SPLITS_LIST}.txt (or .csv)"
_REPEATED = "of which another file has the number"
# As for broken pictures: a few are somebody's own files, more are another data set or a list that was cut off.
_UNLISTED_LIMIT = 0.01


def read_celeba(root: Path, *, annotations: Path | None = None) -> Source:
    """Lists CelebA or a part of it.

    Args:
        root: any folder of the official data set, of Kaggle's, or with some of the pictures: the 178x218 JPEGs
            (`img_align_celeba`) or PNGs (`img_align_celeba_png`), pictures that were cropped or resized before, or
            those in the wild (`img_celeba`); or a zip file of these, unopened, with or without the lists.
        annotations: folder with `list_attr_celeba` and `list_eval_partition`, .txt or (from Kaggle) .csv. By default
            they are searched for: see `celeba_places.find_places`.

    Returns:
        The pictures in the order of their names. Those that are not in the lists are left out.

    Raises:
        FastvaeError: a list is missing or damaged, there are no pictures, or more than 1 % of them are not in the
            lists.
    """
    return read_places(find_places(root, annotations))


def read_places(places: Places) -> Source:
    """`read_celeba` for files that have already been found."""
    root, place, lists, container = places.root, places.pictures, places.lists, places.container
    if places.annotations is not None and not is_folder(places.annotations):
        raise FastvaeError(f"--annotations {shown(places.annotations)} must be a folder containing {_LISTS}")
    for name in (ATTRIBUTES_LIST, SPLITS_LIST):
        if name not in lists:
            near = f"{shown(root)} and the three folders above it"
            where = near if places.annotations is None else shown(places.annotations)
            raise FastvaeError(
                f"neither {name}.txt nor {name}.csv is in {where}; put CelebA's {_LISTS} there, "
                "give their folder (--annotations), or prepare it as a plain folder (--kind folder)"
            )
    if container is not None:
        check_not_empty(container)
    listing = list_pictures(place) if container is None else Listing(container.names, container.left_out)
    names, stems = _one_of_each(listing)
    attribute_names, attributes = read_attributes(lists[ATTRIBUTES_LIST], set(stems))
    splits = read_splits(lists[SPLITS_LIST], set(stems))
    for table, file in ((attributes, lists[ATTRIBUTES_LIST]), (splits, lists[SPLITS_LIST])):
        unlisted = [name for name, stem in zip(names, stems, strict=True) if stem not in table.rows]
        if len(unlisted) > _UNLISTED_LIMIT * len(stems):
            raise FastvaeError(
                f"{len(unlisted)} of {len(stems)} pictures in {shown(place)} are not in {file.name} "
                f"(first: {shown(unlisted[0])}): if the list is cut off, download it again; if they are no pictures of "
                "CelebA, move them elsewhere, or prepare all as a plain folder (--kind folder)"
            )
        for name in unlisted:
            listing.leave_out(name, f"not in {file.name}")
        kept = [(name, stem) for name, stem in zip(names, stems, strict=True) if stem in table.rows]
        names, stems = [name for name, _ in kept], [stem for _, stem in kept]
    unused = _unused(places)
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
            *unused,
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


def _unused(places: Places) -> list[str]:
    names = [*(_below(places.root, path) for path in places.unused), *map(shown, places.other_lists)]
    return [f"not used: {', '.join(names)}"] if names else []


def _below(root: Path, path: Path) -> str:
    """A path as it is found from `root`."""
    if path == root:
        return shown(path.name)
    return shown(path.relative_to(root)) if path.is_relative_to(root) else shown(path)
