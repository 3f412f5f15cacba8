"""Detects the kind of data set in a folder and reads it."""

import logging
import os
from pathlib import Path

from fastvae.data.packed import SPLITS
from fastvae.data.sources import celeba, cifar10, folder
from fastvae.data.sources.listing import HIDDEN, NOT_PICTURES, describe
from fastvae.data.sources.source import Source
from fastvae.errors import FastvaeError, UsageError, suggest
from fastvae.files.places import is_folder, shown

KINDS = ("auto", "celeba", "cifar10", "folder")
_TITLES = {"celeba": "CelebA", "cifar10": "CIFAR-10", "folder": "a plain folder of pictures"}
_logger = logging.getLogger("fastvae")


def read_source(path: Path, *, kind: str = "auto", annotations: Path | None = None) -> Source:
    """Lists the images of a folder, with their splits and attributes; does not decode picture files.

    Logs its kind, splits, classes and skipped files to "fastvae".

    Args:
        path: the folder.
        kind: "celeba", "cifar10", "folder" (any pictures), or "auto": CelebA if `annotations` is given or its
            lists are in, beside or above the folder, CIFAR-10 if its batches are in it, else "folder".
        annotations: folder with CelebA's lists, if they are elsewhere.

    Raises:
        UsageError: an unknown kind, or annotations for a kind other than CelebA.
        FastvaeError: the folder is missing, contains no images, or an incomplete data set.
    """
    check_kind(kind)
    if annotations is not None and kind not in ("auto", "celeba"):
        raise UsageError(f"--annotations is for CelebA; got --kind {kind}")
    if not is_folder(path):
        if os.path.lexists(path):
            raise FastvaeError(f"{shown(path)} is a file; give the folder of the images (unpack archives first)")
        raise FastvaeError(f"{shown(path)} does not exist; give the folder of the images")
    wanted = kind
    if kind == "auto":
        if annotations is not None or celeba.is_celeba(path):
            kind = "celeba"
        else:
            kind = "cifar10" if cifar10.is_cifar10(path) else "folder"
    if kind == "celeba":
        source = celeba.read_celeba(path, annotations=annotations)
    else:
        source = cifar10.read_cifar10(path) if kind == "cifar10" else folder.read_folder(path)
    _logger.info("%s", _summary(path, source))
    if source.left_out:
        is_harmless = source.left_out.keys() <= {HIDDEN, NOT_PICTURES}
        _logger.log(logging.INFO if is_harmless else logging.WARNING, "%s: %s", shown(path), describe(source.left_out))
    if wanted == "auto" and kind == "folder" and celeba.looks_like_celeba(source):
        _logger.warning(
            "%s: this may be CelebA, but %s: read as a plain folder, without its attributes and splits",
            shown(path),
            f"{' and '.join(missing)} (.txt or .csv) is not in, beside or above it"
            if (missing := celeba.missing_lists(path))
            else "its pictures are in more than one folder",
        )
    return source


def _summary(path: Path, source: Source) -> str:
    counts = ", ".join(f"{(source.splits == code).sum()} {split}" for split, code in SPLITS.items())
    names = source.attribute_names
    what = f"{len(names)} {'attributes' if source.kind == 'celeba' else 'classes'}"
    attributes = f"{what} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})" if names else "no classes"
    return (
        f"{shown(path)}: read as {_TITLES[source.kind]}: {len(source.names)} pictures; {counts} "
        f"({shown(source.split_rule)}); {attributes}"
    )


def check_kind(kind: str) -> None:
    """Raises UsageError for an unknown kind."""
    if kind not in KINDS:
        raise UsageError(f"unknown kind of data set {kind!r}{suggest(kind, KINDS)}")
