"""The labels beside the pictures of a WebDataset: `key.cls` and `key.json`."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from fastvae.data.containers.tar_file import Member, opened_tar, read_member
from fastvae.data.sources.labels import Column, codes_of, text_column
from fastvae.errors import FastvaeError
from fastvae.files.places import shown
from fastvae.files.reading import Malformed, parse_json

LABEL_SUFFIXES = (".cls", ".json")
_LARGEST_LABEL = 1 << 20
_LONGEST_TEXT = 1024
_LARGEST_NUMBER = 1 << 31


class WebDatasetLabels:
    """The labels of all pictures so far.

    Attributes:
        columns: values by name, None for pictures without one.
    """

    def __init__(self):
        self.columns: dict[str, list[bool | int | str | None]] = {}
        self._count = 0

    def read(self, file: Path, pictures: list[str], sidecars: dict[str, Member]) -> None:
        """Reads the labels of the pictures of one tar file.

        Raises:
            FastvaeError: one is no label, or has more than 1 MiB.
        """
        row = {key_of(name): self._count + number for number, name in enumerate(pictures)}
        self._count += len(pictures)
        with opened_tar(file) as opened:
            for name, member in sidecars.items():
                try:
                    if (data := read_member(opened, member, _LARGEST_LABEL)) is None:
                        raise Malformed(f"it has {member.size:,} bytes")
                    values = dict(_values(name, data))
                except (Malformed, OSError) as error:
                    raise FastvaeError(
                        f"{shown(file)}: {shown(name)} is no label ({shown(str(error))}); expected a class in a .cls, "
                        "and an object of labels in a .json"
                    ) from None
                for column, value in values.items():
                    known = self.columns.setdefault(column, [])
                    known.extend([None] * (row[key_of(name)] + 1 - len(known)))
                    known[row[key_of(name)]] = value

    def finished(self) -> tuple[list[Column], list[str]]:
        """The columns, and the names of those that hold something else than labels."""
        columns, unused = [], []
        for name, values in self.columns.items():
            values += [None] * (self._count - len(values))
            kinds = {type(value) for value in values} - {type(None)}
            column = None
            if kinds == {str}:
                column = text_column(name, values)
            elif kinds <= {bool, int}:
                missing = np.array([value is None for value in values])
                codes = codes_of(np.array([value or 0 for value in values], np.int64), missing)
                column = None if codes is None else Column(name, codes)
            if column is None:
                unused.append(name)
            else:
                columns.append(column)
        return columns, unused


def _values(name: str, data: bytes) -> Iterator[tuple[str, bool | int | str]]:
    """Names and values of the labels in a .cls or .json.

    Raises:
        Malformed: it holds something else.
    """
    if name.lower().endswith(".cls"):
        try:
            text = data.decode().strip()
        except UnicodeDecodeError:
            raise Malformed("it is not UTF-8 text") from None
        if not text or len(text) > _LONGEST_TEXT or "\n" in text:
            raise Malformed(f"expected one number or name; got {text[:40]!r}")
        is_number = text.removeprefix("-").isdecimal() and len(text) < 10
        yield "cls", int(text) if is_number else text
        return
    parsed = parse_json(data)
    if not isinstance(parsed, dict):
        raise Malformed(f"expected an object; got {type(parsed).__name__}")
    for key, value in parsed.items():
        if _is_label(value):
            yield key, value


def _is_label(value: Any) -> bool:
    if isinstance(value, str):
        return len(value) <= _LONGEST_TEXT
    return isinstance(value, bool) or (isinstance(value, int) and abs(value) < _LARGEST_NUMBER)


def key_of(name: str) -> str:
    """The sample that a member belongs to: its path up to the first dot of its file name."""
    folder, slash, base = name.rpartition("/")
    return f"{folder}{slash}{base.split('.')[0]}"
