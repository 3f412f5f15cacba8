"""Detects the kind of data set in a folder and reads it."""

import dataclasses
import os
from pathlib import Path

from fastvae.data.containers.archives import container_kind
from fastvae.data.sources import archive, celeba, cifar10, cifar100, folder, hub, parquet, webdataset
from fastvae.data.sources.celeba_hints import are_of_others, with_hint
from fastvae.data.sources.celeba_names import are_celebas
from fastvae.data.sources.celeba_places import Places, find_places
from fastvae.data.sources.report import log_report
from fastvae.data.sources.shards import shard_suffix
from fastvae.data.sources.source import Source
from fastvae.errors import FastvaeError, UsageError, suggest
from fastvae.files.places import is_folder, shown

KINDS = ("auto", "celeba", "cifar10", "cifar100", "folder", "parquet", "webdataset")
# What the files and shards of a kind are read as with "auto".
_OF_CONTAINERS = {"zip": "folder", "tar": "webdataset", "parquet": "parquet"}
_CONTAINERS_OF = {
    "celeba": ("zip",),
    "cifar10": ("tar",),
    "cifar100": ("tar",),
    "folder": ("zip", "tar"),
    "parquet": ("parquet",),
    "webdataset": ("tar",),
}
_CIFAR = {"cifar10": cifar10.is_cifar10, "cifar100": cifar100.is_cifar100}
_OF_SHARDS = {".tar": "webdataset", ".parquet": "parquet", None: "folder"}


def read_source(path: Path, *, kind: str = "auto", annotations: Path | None = None) -> Source:
    """Lists the images of a folder or container, with their splits and attributes; does not decode picture files.

    Logs what it was read as, what was used and what was left out to "fastvae" (`report`).

    Args:
        path: the folder; or a zip, tar or Parquet file, or CIFAR's .tar.gz; or "hub:user/name", which is downloaded
            (`hub.download`).
        kind: "celeba", "cifar10", "cifar100", "folder" (any pictures, also in a zip file), "parquet" and "webdataset"
            (one file, or a folder of shards), or "auto": CelebA if `annotations` is given or its lists are in, beside
            or above the folder (above pictures of other sets, which have different sizes, they mean nothing), CIFAR if
            its batches are in it, else what the file is, or the shards in the folder, else "folder".
        annotations: folder with CelebA's lists, if they are elsewhere.

    Raises:
        UsageError: an unknown kind, or annotations for a kind other than CelebA.
        FastvaeError: the folder or file is missing, contains no images, or an incomplete data set.
    """
    check_kind(kind)
    if annotations is not None and kind not in ("auto", "celeba"):
        raise UsageError(f"--annotations is for CelebA; got --kind {kind}")
    given = path
    if hub.is_on_hub(given):
        path = hub.download(given)
    container = None if is_folder(path) else _container(path)
    wanted, places = kind, None
    if kind in ("auto", "celeba"):
        places = find_places(path, annotations)
    if kind == "auto":
        is_celeba = annotations is not None or (places.are_complete and not are_of_others(places))
        kind = "celeba" if is_celeba else _detected(path, container)
    source = _read(path, kind, container, places)
    if not source.has_files and source.attribute_names == cifar10.CLASSES:
        source = dataclasses.replace(source, native_size=cifar10.SIDE)
    if kind in ("parquet", "webdataset") and are_celebas(source.attribute_names):
        source = dataclasses.replace(
            source, kind="celeba", form="Parquet files" if kind == "parquet" else "a WebDataset"
        )
    if hub.is_on_hub(given):
        source = dataclasses.replace(source, origin=str(given))
    if wanted == "auto" and kind == "folder":
        source = with_hint(source, places)
    log_report(given, source)
    return source


def _container(path: Path) -> str:
    """What kind of file it is, "zip", "tar" or "parquet"."""
    if not os.path.lexists(path):
        raise FastvaeError(
            f"{shown(path)} does not exist; give the folder of the images, or a zip, tar or Parquet file"
        )
    if (container := container_of(path)) is None:
        raise FastvaeError(f"{shown(path)} is neither a folder of images nor a zip, tar or Parquet file")
    return container


def container_of(path: Path) -> str | None:
    """What kind of container a file is, "zip", "tar" or "parquet"; None for other files.

    Raises:
        FastvaeError: it is another kind of archive, or compressed as a whole and not CIFAR.
    """
    # CIFAR's archives are small enough to be read although they are compressed.
    return "tar" if any(is_kind(path) for is_kind in _CIFAR.values()) else container_kind(path)


def _detected(path: Path, container: str | None) -> str:
    """The kind of a folder or container other than CelebA."""
    if (cifar := next((kind for kind, is_kind in _CIFAR.items() if is_kind(path)), None)) is not None:
        return cifar
    return _OF_SHARDS[shard_suffix(path)] if container is None else _OF_CONTAINERS[container]


def _read(path: Path, kind: str, container: str | None, places: Places | None) -> Source:
    """Reads a kind other than "auto".

    Args:
        path: what is read.
        kind: see `read_source`.
        container: "zip", "tar", "parquet"; None for a folder.
        places: of CelebA's files, if it may be CelebA.
    """
    if container is not None and container not in _CONTAINERS_OF[kind]:
        raise UsageError(f"--kind {kind}: {shown(path)} is a {container} file; leave --kind out, or unpack it")
    if kind == "celeba":
        return celeba.read_places(places)
    if kind == "cifar10":
        return cifar10.read_cifar10(path)
    if kind == "cifar100":
        return cifar100.read_cifar100(path)
    if kind == "parquet":
        return parquet.read_parquet(path)
    if kind == "webdataset" or container == "tar":
        return webdataset.read_tars(path)
    return folder.read_folder(path) if container is None else archive.read_zip(path, places and places.container)


def check_kind(kind: str) -> None:
    """Raises UsageError for an unknown kind."""
    if kind not in KINDS:
        raise UsageError(f"unknown kind of data set {kind!r}{suggest(kind, KINDS)}")
