"""The files of a data set that is cut into shards, and the splits that their names say."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fastvae.data.sources.folder import VALIDATION_EVERY, every_20th, split_of
from fastvae.data.sources.listing import SUFFIXES, Listing, why_no_picture
from fastvae.files.places import shown

# Options of the progress bar of reading labels, which takes seconds for most data sets: it appears after three.
OF_SHARDS = {"unit": " shards", "delay": 3}
_NO_SPLIT = "shards of no split"
_PICTURES = "pictures beside the shards"
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
    for _, names in _walk(root):
        suffixes = {os.path.splitext(name)[1].lower() for name in names if not name.startswith(".")}  # noqa: PTH122
        if suffixes & SUFFIXES:
            return None
        found |= suffixes & {".parquet", ".tar"}
    return min(found, default=None)


def find_shards(path: Path, suffix: str) -> Shards:
    """A file, or the files of a folder at any depth, sorted by split and name. Links are followed.

    Splits: the names of two or more splits (`folder.split_of`) among the words of the files' names, or of their
    folders, as in `train-00000-of-00004.parquet`, `default/test/0000.parquet` and `faces_val_000001.tar`. Files without
    one are then left out, as is everything with another ending.
    """
    if path.is_file():
        return Shards([path], None, _EVERY_20TH)
    files, others = [], Listing()
    for folder, names in _walk(path):
        for file in (folder / name for name in names):
            if file.name.lower().endswith(suffix) and not file.name.startswith("."):
                files.append(file)
            else:
                name = str(file.relative_to(path))
                others.leave_out(name, why_no_picture(file.name, bytes) or _PICTURES)
    files.sort()
    splits = [shard_split(file.relative_to(path)) for file in files]
    if len(set(splits) - {None}) < 2:
        return Shards(files, None, _EVERY_20TH, others.left_out)
    used = [(file, split) for file, split in zip(files, splits, strict=True) if split is not None]
    used.sort(key=lambda item: item[1])
    for file, split in zip(files, splits, strict=True):
        if split is None:
            others.leave_out(str(file.relative_to(path)), _NO_SPLIT)
    names = sorted({shown(file.name) for file, _ in used})
    if len(names) < len(used):  # those of different splits are called the same
        names = sorted({shown(str(file.relative_to(path))) for file, _ in used})
    rule = f"names of the shards, {names[0]} to {names[-1]}" if len(names) > 2 else f"shards {', '.join(names)}"
    return Shards([file for file, _ in used], [split for _, split in used], rule, others.left_out)


def _walk(root: Path) -> Iterator[tuple[Path, list[str]]]:
    """The folders below `root` that are not hidden, and the names of the files in each.

    Links to folders are followed as for pictures: each folder is read once, and none above `root`.
    """
    top, seen = Path(os.path.realpath(root)), set()
    for folder, folders, names in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen or (real != str(top) and top.is_relative_to(real)):
            folders.clear()
            continue
        seen.add(real)
        found = (Path(folder) / name for name in folders if not name.startswith("."))
        # Links come last, so that folders are read at their own paths, which may say their splits.
        folders[:] = [path.name for path in sorted(found, key=lambda path: (path.is_symlink(), path.name))]
        yield Path(folder), names


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
