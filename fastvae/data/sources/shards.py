"""The files of a data set that is cut into shards, and the splits that their names say."""

import os
import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fastvae.data.sources.folder import VALIDATION_EVERY, every_20th, split_of
from fastvae.data.sources.listing import SUFFIXES
from fastvae.files.places import shown

# Options of the progress bar of reading labels, which takes seconds for most data sets: it appears after three.
OF_SHARDS = {"unit": " shards", "delay": 3}
_NO_SPLIT = "shards of no split"
_EVERY_20TH = f"every {VALIDATION_EVERY}th picture is validation, the rest train"
_LETTERS = re.compile(r"[a-z]+")


@dataclass(frozen=True)
class Shards:
    """Files of one data set.

    Attributes:
        files: in order.
        splits: for each file 0 train, 1 validation, 2 test; None if the names do not say it.
        split_rule: human-readable.
        left_out: files that are not used, by reason.
    """

    files: list[Path]
    splits: list[int] | None
    split_rule: str
    left_out: dict[str, list[str]] = field(default_factory=dict)

    def splits_of(self, counts: list[int]) -> np.ndarray:
        """uint8 [N]: the split of each picture.

        Args:
            counts: pictures in each file; N together.
        """
        if self.splits is None:
            return every_20th(sum(counts))
        return np.repeat(np.array(self.splits, np.uint8), counts)


def shard_suffix(root: Path) -> str | None:
    """ ".parquet" or ".tar" if a folder contains such files and no pictures, else None.

    Ends at the first picture, so that it is fast for a folder of pictures.
    """
    found = set()
    for _, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        suffixes = {os.path.splitext(name)[1].lower() for name in names if not name.startswith(".")}  # noqa: PTH122
        if suffixes & SUFFIXES:
            return None
        found |= suffixes & {".parquet", ".tar"}
    return min(found, default=None)


def find_shards(path: Path, suffix: str) -> Shards:
    """A file, or the files of a folder at any depth, sorted by split and name; hidden ones are skipped.

    Splits: the names of two or more splits (`folder.split_of`) among the words of the files' names, or of their
    folders, as in `train-00000-of-00004.parquet`, `default/test/0000.parquet` and `faces_val_000001.tar`. Files without
    one are then left out.
    """
    if path.is_file():
        return Shards([path], None, _EVERY_20TH)
    files = []
    for folder, folders, names in os.walk(path):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        files += [Path(folder) / name for name in names if name.lower().endswith(suffix) and not name.startswith(".")]
    files.sort()
    splits = [shard_split(file.relative_to(path)) for file in files]
    if len(set(splits) - {None}) < 2:
        return Shards(files, None, _EVERY_20TH)
    used = [(file, split) for file, split in zip(files, splits, strict=True) if split is not None]
    used.sort(key=lambda item: item[1])
    unused = [str(file.relative_to(path)) for file, split in zip(files, splits, strict=True) if split is None]
    names = sorted({shown(file.name) for file, _ in used})
    rule = f"names of the shards, {names[0]} to {names[-1]}" if len(names) > 2 else f"shards {', '.join(names)}"
    left_out = {_NO_SPLIT: unused} if unused else {}
    return Shards([file for file, _ in used], [split for _, split in used], rule, left_out)


def shard_split(file: Path) -> int | None:
    """The split that a shard's name says, or else the folder nearest to it: 0 train, 1 validation, 2 test, or None.

    Args:
        file: relative to the data set's folder.
    """
    for part in reversed((*file.parts[:-1], file.name.split(".")[0])):
        for word in _LETTERS.findall(part.lower()):
            if (split := split_of(word)) is not None:
                return split
    return None
