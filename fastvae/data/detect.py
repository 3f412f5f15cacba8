"""Which kind of data set a folder holds."""

import difflib
from pathlib import Path

from fastvae.data import celeba, cifar10, folder
from fastvae.data.source import Source
from fastvae.errors import FastvaeError, UsageError

KINDS = ("auto", "celeba", "cifar10", "folder")


def read_source(path: Path, *, kind: str = "auto", annotations: Path | None = None) -> Source:
    """Lists the images of a folder, with their splits and attributes; pixels of picture files are not read yet.

    Args:
        path: the folder.
        kind: "celeba", "cifar10", "folder" (any pictures), or "auto": CelebA if `annotations` is given or its
            lists lie in, beside or above the folder, CIFAR-10 if its batches lie in it, else "folder".
        annotations: folder with CelebA's lists, if they are elsewhere.

    Raises:
        UsageError: an unknown kind, or annotations for another kind than CelebA.
        FastvaeError: the folder is missing, holds no images or an incomplete data set.
    """
    check_kind(kind)
    if annotations is not None and kind not in ("auto", "celeba"):
        raise UsageError(f"annotations go with CelebA; got kind {kind!r}")
    if not path.exists():
        raise FastvaeError(f"{path} does not exist; give the folder that holds the images")
    if not path.is_dir():
        raise FastvaeError(f"{path} is a file; give the folder that holds the images (unpack archives first)")
    if kind == "auto":
        if annotations is not None or celeba.is_celeba(path):
            kind = "celeba"
        else:
            kind = "cifar10" if cifar10.is_cifar10(path) else "folder"
    if kind == "celeba":
        return celeba.read_celeba(path, annotations=annotations)
    return cifar10.read_cifar10(path) if kind == "cifar10" else folder.read_folder(path)


def check_kind(kind: str) -> None:
    """Raises UsageError for a kind that does not exist, with the nearest one that does."""
    if kind not in KINDS:
        near = difflib.get_close_matches(kind, KINDS, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise UsageError(f"kind must be one of {', '.join(KINDS)}; got {kind!r}{hint}")
