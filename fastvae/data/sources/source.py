"""The common result of all readers: a data set that is not decoded yet."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fastvae.data.containers.container import Container


@dataclass(frozen=True)
class Source:
    """N images that are not decoded yet, and their metadata.

    Attributes:
        kind: one of `detect.KINDS`.
        root: the folder or file they come from.
        images: N files; or the container that holds N pictures; or uint8 [N, H, W, 3], RGB, if they are not encoded.
        names: N names for logs and for the packed file.
        splits: uint8 [N], 0 train, 1 validation, 2 test.
        split_rule: where the splits come from, human-readable.
        attributes: uint8 [N, A], 0 or 1.
        attribute_names: A names; none if the images have no attributes.
        native_size: side of the images in pixels, if the data set defines one.
        left_out: files in the folder that are skipped, by reason.
        origin: what it is called, if that is not the name of `root`.
        form: which of its kind's forms it has, human-readable, for the report.
        notes: more for the report, one line each: which files were used and which were not.
        warnings: the same, of what probably is not as intended.
    """

    kind: str
    root: Path
    images: list[Path] | Container | np.ndarray
    names: list[str]
    splits: np.ndarray
    split_rule: str
    attributes: np.ndarray
    attribute_names: tuple[str, ...] = ()
    native_size: int | None = None
    left_out: dict[str, list[str]] = field(default_factory=dict)
    origin: str = ""
    form: str = ""
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def has_files(self) -> bool:
        """Whether each picture is a file of its own."""
        return isinstance(self.images, list)

    @property
    def files(self) -> list[Path]:
        """The files that hold the pictures; none for arrays."""
        return self.images if self.has_files else getattr(self.images, "files", [])
