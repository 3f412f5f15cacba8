"""Reads CelebA's lists of attributes and splits, in the authors' form (.txt) or Kaggle's (.csv)."""

import contextlib
import csv
import itertools
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Generic, TypeVar

import numpy as np

from fastvae.data.containers.container import open_bounded
from fastvae.data.containers.zip_file import BROKEN
from fastvae.data.packed import SPLITS
from fastvae.errors import FastvaeError
from fastvae.files.places import shown
from fastvae.files.reading import open_regular

ATTRIBUTES_LIST = "list_attr_celeba"
SPLITS_LIST = "list_eval_partition"
# A row of CelebA's attributes has 130 bytes, the file 26 MB.
_LONGEST_LINE = 1 << 20
_LARGEST_LIST = 1 << 30
_CODES = {str(code): code for code in SPLITS.values()}
_NAMED = 3
_Value = TypeVar("_Value")


@dataclass(frozen=True)
class ListFile:
    """A list, as a file or inside a zip file.

    Attributes:
        path: of the file or the zip file.
        member: its name in the zip file.
    """

    path: Path
    member: str | None = None

    @property
    def name(self) -> str:
        """The file's name without folders."""
        return self.path.name if self.member is None else self.member.rpartition("/")[2]

    @property
    def place(self) -> Path:
        """For messages; inside a zip file it goes on below the file's path."""
        return self.path if self.member is None else self.path / self.member

    @property
    def shown(self) -> str:
        """`place`, in one line."""
        return shown(self.place)

    @contextlib.contextmanager
    def opened(self) -> Iterator[tuple[IO[bytes], int]]:
        """The opened file, and its size."""
        if self.member is None:
            with open_regular(self.path) as file:
                size = file.seek(0, 2)
                file.seek(0)
                yield file, size
        else:
            with open_bounded(self.path) as file, zipfile.ZipFile(file) as archive, archive.open(self.member) as data:
                yield data, archive.getinfo(self.member).file_size


@dataclass
class Table(Generic[_Value]):
    """The rows of the wanted pictures.

    Attributes:
        rows: by the picture's name without suffix.
        others: number of other pictures in the list.
        first_others: the first names of these.
    """

    rows: dict[str, _Value] = field(default_factory=dict)
    others: int = 0
    first_others: list[str] = field(default_factory=list)

    def count(self, name: str) -> None:
        """Counts a picture that is not wanted."""
        self.others += 1
        if len(self.first_others) < _NAMED:
            self.first_others.append(name[:100])


def read_attributes(file: ListFile, wanted: set[str]) -> tuple[tuple[str, ...], Table[np.ndarray]]:
    """Names of the attributes, and for each wanted picture uint8 [A], 0 or 1.

    The file has a count, a line of names, and a line `000001.jpg -1 1 ...` for each picture; or is comma-separated with
    a header.

    Raises:
        FastvaeError: it is damaged or cannot be read.
    """
    rows = _rows(file)
    _, header = next(rows, (0, []))
    if len(header) == 1 and header[0].isdigit():
        _, header = next(rows, (0, []))
    elif file.name.endswith(".csv"):
        header = header[1:]
    if not header:
        raise FastvaeError(f"{file.shown} is damaged: it contains no attribute names; download it again")
    table: Table[np.ndarray] = Table()
    for number, (name, *values) in rows:
        if (stem := stem_of(name)) not in wanted:
            table.count(name)
            continue
        if len(values) != len(header) or not {"-1", "1", "0"}.issuperset(values):
            raise FastvaeError(f"{file.shown}, line {number}: expected a name and {len(header)} values, 1 or -1")
        table.rows[stem] = np.frombuffer(bytes(map("1".__eq__, values)), np.uint8)
    return tuple(map(shown, header)), table


def read_splits(file: ListFile, wanted: set[str]) -> Table[int]:
    """For each wanted picture its split: 0 train, 1 validation, 2 test.

    The file has a line `000001.jpg 0` for each picture; or is comma-separated with a header.

    Raises:
        FastvaeError: it is damaged or cannot be read.
    """
    table: Table[int] = Table()
    for number, (name, *values) in _rows(file):
        if (stem := stem_of(name)) not in wanted:
            if values and values[0] in _CODES:  # else a header
                table.count(name)
            continue
        if len(values) != 1 or values[0] not in _CODES:
            row = shown(" ".join((name, *values))[:80])
            raise FastvaeError(f"{file.shown}, line {number}: expected a name and 0, 1 or 2; got {row!r}")
        table.rows[stem] = _CODES[values[0]]
    return table


def _rows(file: ListFile) -> Iterator[tuple[int, list[str]]]:
    """Line numbers and fields; empty lines are skipped."""
    number, is_comma_separated = 0, file.name.endswith(".csv")
    try:
        # One line at a time: a damaged file may have any size and consist of line breaks alone.
        with file.opened() as (data, size):
            if size > _LARGEST_LIST:
                raise FastvaeError(f"{file.shown} is larger than CelebA's lists; download it again")
            for number in itertools.count(1):
                if not (line := data.readline(_LONGEST_LINE)):
                    return
                text = line.decode("utf-8", "surrogateescape").removeprefix("\ufeff" if number == 1 else "")
                fields = _comma_separated(text) if is_comma_separated else text.split()
                if fields:
                    yield number, fields
    except OSError as error:
        raise FastvaeError(f"{file.shown} cannot be read ({error.strerror or shown(str(error))})") from error
    except (*BROKEN, KeyError) as error:
        raise FastvaeError(f"{file.shown} cannot be read ({shown(str(error))}); download it again") from error
    except csv.Error as error:
        raise FastvaeError(f"{file.shown}, line {number}: {shown(str(error))}; download it again") from error


def _comma_separated(line: str) -> list[str]:
    fields = next(csv.reader([line.rstrip("\r\n")]), [])
    return [field.strip() for field in fields]


def stem_of(name: str) -> str:
    """A name without its suffix: the lists say .jpg for CelebA's PNG edition, too."""
    return name.rpartition(".")[0] or name
