"""Keeps count of the pictures that cannot be read while a run goes on without them."""

import logging
import threading
from collections.abc import Sequence

from fastvae.errors import FastvaeError
from fastvae.files.places import shown

MOST_BROKEN = 0.01
_NAMED = 10
_logger = logging.getLogger("fastvae")


class BrokenPictures:
    """The broken pictures of one data set. May be used from several threads.

    Args:
        names: of all its pictures.
    """

    def __init__(self, names: Sequence[str]):
        self._names = names
        self._reasons: dict[int, str] = {}
        self._lock = threading.Lock()

    def __contains__(self, index: int) -> bool:
        return index in self._reasons

    def add(self, index: int, reason: str) -> None:
        """Counts a picture and names it in the log "fastvae", both once.

        Raises:
            FastvaeError: these are more than 1 % of the data set.
        """
        with self._lock:
            if index not in self._reasons:
                self._reasons[index] = reason
                _logger.warning(
                    "%s is broken and another picture takes its place: %s", shown(self._names[index]), reason
                )
            allowed = int(len(self._names) * MOST_BROKEN)
            if len(self._reasons) > allowed:
                first = "; ".join(
                    f"{shown(self._names[at])}: {why}" for at, why in sorted(self._reasons.items())[:_NAMED]
                )
                raise FastvaeError(
                    f"{len(self._reasons)} or more of {len(self._names)} images are broken, and at most {allowed} "
                    f"(1 %) may be; remove or replace them. First: {first}"
                )
