"""Reads tar files of pictures: a WebDataset in one or more shards, or any tar file with pictures in folders."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from fastvae.data.containers.archives import check_not_empty
from fastvae.data.containers.tar_file import (
    Member,
    TarPictures,
    list_members,
    opened_tar,
    pictures_among,
    read_member,
)
from fastvae.data.sources.folder import arranged
from fastvae.data.sources.labels import NOT_LABELS, Column, attributes_of, codes_of, text_column
from fastvae.data.sources.listing import NOT_PICTURES, Listing
from fastvae.data.sources.shards import OF_SHARDS, find_shards
from fastvae.data.sources.source import Source
from fastvae.errors import FastvaeError
from fastvae.files.places import shown
from fastvae.files.reading import Malformed, parse_json
from fastvae.progress_bar import progress_bar

_LABEL_SUFFIXES = (".cls", ".json")
_LARGEST_LABEL = 1 << 20
_LONGEST_TEXT = 1024
_LARGEST_NUMBER = 1 << 31
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
    labels = _Labels()
    counts = []
    for number, file in enumerate(progress_bar(shards.files, what="list", total=len(shards.files), **OF_SHARDS)):
        members = list_members(file, listing)
        sidecars = {name: member for name, member in members.items() if name.lower().endswith(_LABEL_SUFFIXES)}
        pictures = pictures_among(file, {k: v for k, v in members.items() if k not in sidecars}, listing)
        keys = {_key(name) for name in pictures}
        for name in [name for name in sidecars if _key(name) not in keys]:
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
    source = arranged("folder", path, container, names, listing.left_out)
    if path not in shards.files:
        empty = np.empty((len(names), 0), np.uint8)
        splits = shards.splits_of(counts)
        source = dataclasses.replace(source, splits=splits, split_rule=shards.split_rule, attributes=empty)
        source = dataclasses.replace(source, kind="webdataset", attribute_names=())
    if labels.columns:
        columns, unused = labels.finished()
        attributes, attribute_names, no_labels = attributes_of(columns, len(names))
        for name in (*unused, *no_labels):
            listing.leave_out(name, NOT_LABELS)
        source = dataclasses.replace(source, kind="webdataset", attributes=attributes, attribute_names=attribute_names)
    return source


class _Labels:
    """The labels of all pictures so far.

    Attributes:
        columns: values by name, None for pictures without one.
    """

    def __init__(self):
        self.columns: dict[str, list[bool | int | str | None]] = {}
        self._count = 0

    def read(self, file: Path, pictures: list[str], sidecars: dict[str, Member]) -> None:
        """Reads the labels of the pictures of one tar file.

        Raises:
            FastvaeError: one is no label, or has more than 1 MiB.
        """
        row = {_key(name): self._count + number for number, name in enumerate(pictures)}
        self._count += len(pictures)
        with opened_tar(file) as opened:
            for name, member in sidecars.items():
                try:
                    if (data := read_member(opened, member, _LARGEST_LABEL)) is None:
                        raise Malformed(f"it has {member.size:,} bytes")
                    values = dict(_values(name, data))
                except (Malformed, OSError) as error:
                    raise FastvaeError(
                        f"{shown(file)}: {shown(name)} is no label ({shown(str(error))}); expected a class in a .cls, "
                        "and an object of labels in a .json"
                    ) from None
                for column, value in values.items():
                    known = self.columns.setdefault(column, [])
                    known.extend([None] * (row[_key(name)] + 1 - len(known)))
                    known[row[_key(name)]] = value

    def finished(self) -> tuple[list[Column], list[str]]:
        """The columns, and the names of those that hold something else than labels."""
        columns, unused = [], []
        for name, values in self.columns.items():
            values += [None] * (self._count - len(values))
            kinds = {type(value) for value in values} - {type(None)}
            column = None
            if kinds == {str}:
                column = text_column(name, values)
            elif kinds <= {bool, int}:
                missing = np.array([value is None for value in values])
                codes = codes_of(np.array([value or 0 for value in values], np.int64), missing)
                column = None if codes is None else Column(name, codes)
            if column is None:
                unused.append(name)
            else:
                columns.append(column)
        return columns, unused


def _values(name: str, data: bytes) -> Iterator[tuple[str, bool | int | str]]:
    """Names and values of the labels in a .cls or .json.

    Raises:
        Malformed: it holds something else.
    """
    if name.lower().endswith(".cls"):
        try:
            text = data.decode().strip()
        except UnicodeDecodeError:
            raise Malformed("it is not UTF-8 text") from None
        if not text or len(text) > _LONGEST_TEXT or "\n" in text:
            raise Malformed(f"expected one number or name; got {text[:40]!r}")
        is_number = text.removeprefix("-").isdecimal() and len(text) < 10
        yield "cls", int(text) if is_number else text
        return
    parsed = parse_json(data)
    if not isinstance(parsed, dict):
        raise Malformed(f"expected an object; got {type(parsed).__name__}")
    for key, value in parsed.items():
        if _is_label(value):
            yield key, value


def _is_label(value: Any) -> bool:
    if isinstance(value, str):
        return len(value) <= _LONGEST_TEXT
    return isinstance(value, bool) or (isinstance(value, int) and abs(value) < _LARGEST_NUMBER)


def _key(name: str) -> str:
    """The sample that a member belongs to: its path up to the first dot of its file name."""
    folder, slash, base = name.rpartition("/")
    return f"{folder}{slash}{base.split('.')[0]}"


def _one_each(pictures: list[str], listing: Listing) -> list[str]:
    """One picture of each sample: key.jpg rather than key.mask.png, else the first."""
    chosen: dict[str, str] = {}
    for name in sorted(pictures, key=lambda name: name.rpartition("/")[2].count(".")):
        if chosen.setdefault(_key(name), name) != name:
            listing.leave_out(name, _SECOND_PICTURE)
    return [name for name in pictures if chosen[_key(name)] == name]
