"""The common result of all readers: a data set that is not decoded yet."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Source:
    """N images that are not decoded yet, and their metadata.

    Attributes:
        kind: "celeba", "cifar10", "cifar100" or "folder".
        root: the folder they come from.
        images: N files, or uint8 [N, H, W, 3], RGB, if the data set does not consist of picture files.
        names: N names for logs and for the packed file.
        splits: uint8 [N], 0 train, 1 validation, 2 test.
        split_rule: where the splits come from, human-readable.
        attributes: uint8 [N, A], 0 or 1.
        attribute_names: A names; none if the images have no attributes.
        native_size: side of the images in pixels, if the data set defines one.
        left_out: files in the folder that are skipped, by reason.
        form: which of its kind's forms it has, human-readable; empty if there is one only.
        notes: more about what was read and what was not, one human-readable line each.
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
    left_out: dict[str, list[str]] = field(default_factory=dict)
    form: str = ""
    notes: tuple[str, ...] = ()
