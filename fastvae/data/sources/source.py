"""A data set that is still to be decoded: what the readers of all kinds return and `prepare` takes."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np


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
        left_out: what lies in the folder and is not read, by reason.
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
