"""The rule for pictures that cannot be read: at most 1 % of a data set may be broken."""

import threading
from collections.abc import Sequence

from fastvae.errors import FastvaeError
from fastvae.files.places import shown

_LIMIT = 0.01
# Pictures that an error names.
NAMED = 10


class BrokenPictures:
    """Counts the broken pictures of one data set. Thread-safe.

    Args:
        names: of all its pictures.
        advice: what to do about too many, for the error.
    """

    def __init__(self, names: Sequence[str], advice: str):
        self._names, self._advice = names, advice
        self._allowed = int(len(names) * _LIMIT)
        self._reasons: dict[int, str] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._reasons)

    def __contains__(self, index: int) -> bool:
        return index in self._reasons

    @property
    def are_too_many(self) -> bool:
        return len(self._reasons) > self._allowed

    def add(self, index: int, reason: str) -> bool:
        """Counts a picture, once. Returns whether it is new."""
        with self._lock:
            is_new = index not in self._reasons
            self._reasons.setdefault(index, reason)
            return is_new

    def lines(self) -> list[str]:
        """The name of each broken picture and its reason, in the order of the data set."""
        with self._lock:
            return [f"{shown(self._names[index])}: {reason}" for index, reason in sorted(self._reasons.items())]

    def check(self) -> None:
        """Raises FastvaeError if they are too many."""
        if self.are_too_many:
            lines = self.lines()
            raise FastvaeError(
                f"at least {len(lines)} of {len(self._names)} images are broken, and the limit is {self._allowed} "
                f"(1 %): {self._advice}. First: {'; '.join(lines[:NAMED])}"
            )
