"""Reads CelebA's lists of attributes and splits, in the authors' form (.txt) or Kaggle's (.csv)."""

import csv
import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from fastvae.data.packed import SPLITS
from fastvae.errors import FastvaeError
from fastvae.files.places import is_file, resolved, shown
from fastvae.files.reading import open_regular

ATTRIBUTES_LIST = "list_attr_celeba"
SPLITS_LIST = "list_eval_partition"
_ENDINGS = (".txt", ".csv")
_INNER_FOLDERS = ("", "Anno", "Eval")
# A row of CelebA's attributes has 130 bytes, the file 26 MB.
_LONGEST_LINE = 1 << 20
_LARGEST_LIST = 1 << 30
_CODES = {str(code): code for code in SPLITS.values()}


def find_list(root: Path, name: str, annotations: Path | None = None) -> Path | None:
    """Finds a list by its name without suffix.

    Searches `annotations` if given, else `root` (as given, and with links followed) and the two folders above it; and
    `Anno` and `Eval` in each. None if it is not found.
    """
    if annotations is not None:
        folders = [annotations]
    else:
        starts = (resolved(root), Path(os.path.realpath(root)))
        folders = dict.fromkeys(folder for start in starts for folder in (start, *start.parents[:2]))
    candidates = (folder / inner / f"{name}{e}" for folder in folders for inner in _INNER_FOLDERS for e in _ENDINGS)
    return next(filter(is_file, candidates), None)


def read_attributes(file: Path, wanted: set[str]) -> tuple[tuple[str, ...], dict[str, np.ndarray]]:
    """Names of the attributes; and for each wanted picture in the list, by its name without suffix, uint8 [A], 0 or 1.

    The file has a count, a line of names, and a line `000001.jpg -1 1 ...` for each picture; or is comma-separated with
    a header.

    Raises:
        FastvaeError: it is damaged or cannot be read.
    """
    rows = _rows(file)
    if file.suffix == ".txt":
        next(rows, None)
    _, header = next(rows, (0, []))
    names = tuple(header if file.suffix == ".txt" else header[1:])
    if not names:
        raise FastvaeError(f"{shown(file)} is damaged: it contains no attribute names; download it again")
    table = {}
    for number, (name, *values) in rows:
        if (stem := stem_of(name)) in wanted:
            if len(values) != len(names) or not {"-1", "1", "0"}.issuperset(values):
                raise FastvaeError(f"{shown(file)}, line {number}: expected a name and {len(names)} values, 1 or -1")
            table[stem] = np.frombuffer(bytes(map("1".__eq__, values)), np.uint8)
    return tuple(map(shown, names)), table


def read_splits(file: Path, wanted: set[str]) -> dict[str, int]:
    """For each wanted picture in the list, by its name without suffix, its split: 0 train, 1 validation, 2 test.

    The file has a line `000001.jpg 0` for each picture; or is comma-separated with a header.

    Raises:
        FastvaeError: it is damaged or cannot be read.
    """
    table = {}
    for number, (name, *values) in _rows(file):
        if (stem := stem_of(name)) in wanted:
            if len(values) != 1 or values[0] not in _CODES:
                row = shown(" ".join((name, *values))[:80])
                raise FastvaeError(f"{shown(file)}, line {number}: expected a name and 0, 1 or 2; got {row!r}")
            table[stem] = _CODES[values[0]]
    return table


def _rows(file: Path) -> Iterator[tuple[int, list[str]]]:
    """Line numbers and fields; empty lines are skipped."""
    is_text = file.suffix == ".txt"
    try:
        # One line at a time: a damaged file may have any size and consist of line breaks alone.
        with open_regular(file) as data:
            if data.seek(0, 2) > _LARGEST_LIST:
                raise FastvaeError(f"{shown(file)} is larger than CelebA's lists; download it again")
            data.seek(0)
            for number in itertools.count(1):
                if not (line := data.readline(_LONGEST_LINE)):
                    return
                text = line.decode("utf-8", "surrogateescape").removeprefix("\ufeff" if number == 1 else "")
                fields = text.split() if is_text else _comma_separated(text)
                if fields:
                    yield number, fields
    except OSError as error:
        raise FastvaeError(f"{shown(file)} cannot be read ({error.strerror or shown(str(error))})") from error
    except csv.Error as error:
        raise FastvaeError(f"{shown(file)}, line {number}: {shown(str(error))}; download it again") from error


def _comma_separated(line: str) -> list[str]:
    fields = next(csv.reader([line.rstrip("\r\n")]), [])
    return [field.strip() for field in fields]


def stem_of(name: str) -> str:
    """A name without its suffix: the lists say .jpg for CelebA's PNG edition, too."""
    return name.rpartition(".")[0] or name
