"""The folder of a run, and its status line, as ranks other than the first one see them: they write nothing."""

import os
from pathlib import Path
from typing import Any

from fastvae.train.progress import Progress


class UnwrittenRun:
    """What a trainer uses of `RunFolder`, writing nothing; only rank 0's machine needs to have the folder.

    Args:
        path: of the folder.
    """

    def __init__(self, path: Path):
        self.path = path
        self.checkpoints, self.pictures = path / "checkpoints", path / "pictures"

    def create(self, config: dict[str, Any]) -> None:
        """Does nothing."""

    def hold(self) -> None:
        """Does nothing."""

    def note_choices(self) -> None:
        """Does nothing."""

    def append(self, stats: dict[str, Any]) -> None:
        """Does nothing."""

    def close(self) -> None:
        """Does nothing."""


def unseen_progress(total: int) -> Progress:
    """A status line that nobody sees."""
    return Progress(total, stream=Path(os.devnull).open("w"))
