"""What `prepare` reads: one description for all kinds of data set, and the choice of the kind."""

import difflib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fastvae.errors import FastvaeError, UsageError

KINDS = ("auto", "celeba", "cifar10", "folder")


@dataclass(frozen=True)
class Source:
    """N images that are still to be decoded, and everything known about them.

    Attributes:
        kind: "celeba", "cifar10" or "folder".
        root: the folder they come from.
        images: N files, or uint8 [N, H, W, 3], RGB, where the data set is not one of picture files.
        names: N names for logs and for the packed file.
        splits: uint8 [N], 0 train, 1 validation, 2 test.
        split_rule: where the splits come from, in words.
        attributes: uint8 [N, A], 0 or 1.
        attribute_names: A names; none if the images have no attributes.
        native_size: side of the images in pixels if the data set has one of its own.
    """

    kind: str
    root: Path
    images: list[Path] | np.ndarray
    names: list[str]
    splits: np.ndarray
    split_rule: str
    attributes: np.ndarray
    attribute_names: tuple[str, ...] = ()
    native_size: int | None = None


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
    # Here and not at the top, because these modules describe what they find with the Source above.
    from fastvae.data import celeba, cifar10, folder

    check_kind(kind)
    if annotations is not None and kind not in ("auto", "celeba"):
        raise UsageError(f"annotations go with CelebA; got kind {kind!r}")
    if not path.exists():
        raise FastvaeError(f"{path} does not exist; give the folder that holds the images")
    if not path.is_dir():
        raise FastvaeError(f"{path} is a file; give the folder that holds the images (unpack an archive first)")
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
