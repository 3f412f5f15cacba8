"""Detects the kind of data set in a folder and reads it."""

import dataclasses
import logging
import os
from pathlib import Path

from fastvae.data.containers.archives import container_kind
from fastvae.data.packed import SPLITS
from fastvae.data.sources import archive, celeba, cifar10, folder, hub, parquet, webdataset
from fastvae.data.sources.labels import NOT_LABELS
from fastvae.data.sources.listing import HIDDEN, NOT_PICTURES, describe
from fastvae.data.sources.shards import shard_suffix
from fastvae.data.sources.source import Source
from fastvae.errors import FastvaeError, UsageError, suggest
from fastvae.files.places import is_folder, shown

KINDS = ("auto", "celeba", "cifar10", "folder", "parquet", "webdataset")
_TITLES = {
    "celeba": "CelebA",
    "cifar10": "CIFAR-10",
    "folder": "a plain folder of pictures",
    "parquet": "Parquet files of pictures",
    "webdataset": "a WebDataset",
}
# What the files and shards of a kind are read as with "auto".
_OF_CONTAINERS = {"zip": "folder", "tar": "webdataset", "parquet": "parquet"}
_CONTAINERS_OF = {
    "celeba": ("zip",),
    "cifar10": (),
    "folder": ("zip", "tar"),
    "parquet": ("parquet",),
    "webdataset": ("tar",),
}
_OF_SHARDS = {".tar": "webdataset", ".parquet": "parquet", None: "folder"}
_logger = logging.getLogger("fastvae")


def read_source(path: Path, *, kind: str = "auto", annotations: Path | None = None) -> Source:
    """Lists the images of a folder or container, with their splits and attributes; does not decode picture files.

    Logs its kind, splits, classes and skipped files to "fastvae".

    Args:
        path: the folder; or a zip, tar or Parquet file; or "hub:user/name", which is downloaded (`hub.download`).
        kind: "celeba", "cifar10", "folder" (any pictures, also in a zip file), "parquet" and "webdataset" (one file, or
            a folder of shards), or "auto": CelebA if `annotations` is given or its lists are in, beside or above the
            folder, CIFAR-10 if its batches are in it, else what the file is, or the shards in the folder, else
            "folder".
        annotations: folder with CelebA's lists, if they are elsewhere.

    Raises:
        UsageError: an unknown kind, or annotations for a kind other than CelebA.
        FastvaeError: the folder or file is missing, contains no images, or an incomplete data set.
    """
    check_kind(kind)
    if annotations is not None and kind not in ("auto", "celeba"):
        raise UsageError(f"--annotations is for CelebA; got --kind {kind}")
    name, container = path, None
    if hub.is_on_hub(path):
        path = hub.download(path)
    if not is_folder(path):
        if not os.path.lexists(path):
            raise FastvaeError(
                f"{shown(path)} does not exist; give the folder of the images, or a zip, tar or Parquet file"
            )
        if (container := container_kind(path)) is None:
            raise FastvaeError(f"{shown(path)} is a file; give the folder of the images, or a zip, tar or Parquet file")
    wanted = kind
    if kind == "auto":
        if annotations is not None or celeba.is_celeba(path):
            kind = "celeba"
        elif container is not None:
            kind = _OF_CONTAINERS[container]
        else:
            kind = "cifar10" if cifar10.is_cifar10(path) else _OF_SHARDS[shard_suffix(path)]
    source = _read(path, kind, container, annotations)
    if not source.has_files and source.attribute_names == cifar10.CLASSES:
        source = dataclasses.replace(source, native_size=cifar10.SIDE)
    if hub.is_on_hub(name):
        source = dataclasses.replace(source, origin=str(name))
    _logger.info("%s", _summary(path, source))
    if source.left_out:
        is_harmless = source.left_out.keys() <= {HIDDEN, NOT_PICTURES, NOT_LABELS}
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


def _read(path: Path, kind: str, container: str | None, annotations: Path | None) -> Source:
    """Reads a kind other than "auto".

    Args:
        path: what is read.
        kind: see `read_source`.
        container: "zip", "tar", "parquet"; None for a folder.
        annotations: see `read_source`.
    """
    if container is not None and container not in _CONTAINERS_OF[kind]:
        raise UsageError(f"--kind {kind}: {shown(path)} is a {container} file; leave --kind out, or unpack it")
    if kind == "celeba":
        return celeba.read_celeba(path, annotations=annotations)
    if kind == "cifar10":
        return cifar10.read_cifar10(path)
    if kind == "parquet":
        return parquet.read_parquet(path)
    if kind == "webdataset" or container == "tar":
        return webdataset.read_tars(path)
    return folder.read_folder(path) if container is None else archive.read_zip(path)


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
