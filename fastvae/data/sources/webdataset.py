"""Reads tar files of pictures: a WebDataset in one or more shards, or any tar file with pictures in folders."""

import dataclasses
from pathlib import Path

import numpy as np

from fastvae.data.containers.archives import check_not_empty
from fastvae.data.containers.tar_file import Member, TarPictures, list_members, pictures_among
from fastvae.data.sources.folder import arranged
from fastvae.data.sources.labels import NOT_LABELS, attributes_of
from fastvae.data.sources.listing import NOT_PICTURES, Listing
from fastvae.data.sources.shards import OF_SHARDS, find_shards
from fastvae.data.sources.source import Source
from fastvae.data.sources.webdataset_labels import LABEL_SUFFIXES, WebDatasetLabels, key_of
from fastvae.errors import FastvaeError
from fastvae.files.places import shown
from fastvae.progress_bar import progress_bar

_SECOND_PICTURE = "further pictures of the same sample"


def read_tars(path: Path) -> Source:
    """Lists a tar file, or a folder of shards; reads labels, no pictures.

    In a WebDataset the members `key.jpg`, `key.cls` and `key.json` are one sample. Labels become attributes
    (`labels.attributes_of`): the class in .cls, a number or a name, and the integers, booleans and class names of a
    .json. Without any labels, folders are classes. Splits of several shards are their names (`shards.find_shards`), of
    one file its folders, as in `folder.read_folder`.

    Raises:
        FastvaeError: a file is damaged, truncated or compressed, a label cannot be read, or there are no pictures.
    """
    shards = find_shards(path, ".tar")
    if not shards.files:
        raise FastvaeError(f"{shown(path)} contains no .tar files; check the path")
    listing = Listing(left_out=dict(shards.left_out))
    names: list[str] = []
    places: list[tuple[int, Member]] = []
    labels = WebDatasetLabels()
    counts = []
    for number, file in enumerate(progress_bar(shards.files, what="list", total=len(shards.files), **OF_SHARDS)):
        members = list_members(file, listing)
        sidecars = {name: member for name, member in members.items() if name.lower().endswith(LABEL_SUFFIXES)}
        pictures = pictures_among(file, {k: v for k, v in members.items() if k not in sidecars}, listing)
        keys = {key_of(name) for name in pictures}
        for name in [name for name in sidecars if key_of(name) not in keys]:
            listing.leave_out(name, NOT_PICTURES)
            del sidecars[name]
        if sidecars:
            pictures = _one_each(pictures, listing)
        if path == file:
            pictures.sort()
        labels.read(file, pictures, sidecars)
        stem = "" if path == file else f"{file.relative_to(path).with_suffix('')}/"
        names += [f"{stem}{name}" for name in pictures]
        places += [(number, members[name]) for name in pictures]
        counts.append(len(pictures))
    container = TarPictures(path, shards.files, names, places, listing.left_out)
    check_not_empty(container)
    if path in shards.files:
        source = arranged("folder", path, container, names, listing.left_out)
    else:
        source = Source(
            kind="webdataset",
            root=path,
            images=container,
            names=names,
            splits=shards.splits_of(counts),
            split_rule=shards.split_rule,
            attributes=np.empty((len(names), 0), np.uint8),
            left_out=listing.left_out,
        )
    if labels.columns:
        columns, unused = labels.finished()
        attributes, attribute_names, no_labels = attributes_of(columns, len(names))
        for name in (*unused, *no_labels):
            listing.leave_out(name, NOT_LABELS)
        source = dataclasses.replace(source, kind="webdataset", attributes=attributes, attribute_names=attribute_names)
    return source


def _one_each(pictures: list[str], listing: Listing) -> list[str]:
    """One picture of each sample: key.jpg rather than key.mask.png, else the first."""
    chosen: dict[str, str] = {}
    for name in sorted(pictures, key=lambda name: name.rpartition("/")[2].count(".")):
        if chosen.setdefault(key_of(name), name) != name:
            listing.leave_out(name, _SECOND_PICTURE)
    return [name for name in pictures if chosen[key_of(name)] == name]
