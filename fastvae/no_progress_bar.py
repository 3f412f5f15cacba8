"""Stands in for tqdm where it is not installed: shows nothing."""

import sys
from collections.abc import Iterable, Iterator
from typing import Any, TextIO


class NoProgressBar:
    """What fastvae uses of `tqdm.tqdm`, without the bar.

    Args:
        items: to iterate over; None if the caller updates the bar.
        options: tqdm's, ignored.
    """

    def __init__(self, items: Iterable | None = None, **options: Any):
        self._items = items

    def __iter__(self) -> Iterator:
        return iter(self._items)

    def __enter__(self) -> "NoProgressBar":
        return self

    def __exit__(self, *error) -> None:
        pass

    def update(self, count: float = 1) -> None:
        """Does nothing."""

    def set_description(self, text: str) -> None:
        """Does nothing."""

    @staticmethod
    def write(text: str, file: TextIO | None = None) -> None:
        """Prints a line."""
        print(text, file=file or sys.stdout)
