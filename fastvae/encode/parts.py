"""The finished parts of a file of latent vectors, in a folder beside it, so that an interruption loses nothing.

Part `0000000000-0000004096.safetensors` holds what became of the first 4,096 images: `indices`, int64 [m], those that
could be read; `means` and perhaps `log_variances`, float32 [m, latent]; and in its metadata the request and the reasons
why the others could not be. Each is written atomically. Parts that follow one another from the first image count.
"""

import contextlib
import json
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import torch

from fastvae.encode.request import Request, metadata_of
from fastvae.errors import FastvaeError, UsageError
from fastvae.files import locks
from fastvae.files.atomic_write import write_atomically
from fastvae.files.tensor_file import SafetensorError, open_safetensors, to_bytes

_NAME = re.compile(r"(\d{10})-(\d{10})\.safetensors")
# A part is written after so many images or seconds, whichever comes first.
_LARGEST = 4096
_SECONDS = 10.0


@dataclass(frozen=True)
class _Batch:
    """Rows of the images that could be read, and the reasons by index of the others."""

    rows: dict[str, np.ndarray]
    skipped: dict[str, str]

    def __len__(self) -> int:
        return len(self.rows["indices"]) + len(self.skipped)


class Parts:
    """A context manager; while it is open, no other process writes there.

    Args:
        out: the file to come; the folder has its name and ".parts".
        request: what the parts must hold.
        overwrite: whether to remove parts that hold something else.

    Attributes:
        done: images, from the first one on, that are in parts.

    Raises:
        UsageError: there are parts that hold something else.
        FastvaeError: the folder cannot be made or read, or another process is writing there.
    """

    def __init__(self, out: Path, request: Request, *, overwrite: bool):
        self.folder = out.with_name(f"{out.name}.parts")
        self.done = 0
        self._out, self._request, self._overwrite = out, request, overwrite
        # What has become of the images from `done` on, and the reasons why some could not be read. One attribute, so
        # that an interrupt leaves all of a batch in it or nothing.
        self._waiting: list[_Batch] = []
        self._since = time.monotonic()

    def __enter__(self) -> Self:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(self.folder, os.O_RDONLY) if locks.AVAILABLE else None
        except OSError as error:
            raise FastvaeError(f"{self.folder} cannot be made ({error.strerror}): choose another --out") from error
        try:
            if self._lock is not None and not locks.try_lock(self._lock):
                raise FastvaeError(f"another process is writing {self._out}: wait until it ends, or stop it")
            self._tidy()
            self.done = sum(stop - start for start, stop, _ in self._chain())
        except OSError as error:
            self._unlock()
            raise FastvaeError(f"{self.folder} cannot be read ({error.strerror}): choose another --out") from error
        except BaseException:
            self._unlock()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):
            self.folder.rmdir()  # if nothing is in it
        self._unlock()

    def add(self, indices: np.ndarray, rows: dict[str, np.ndarray], skipped: dict[int, str]) -> None:
        """Takes the results of the next images.

        Args:
            indices: int64 [m], of those that could be read.
            rows: float32 [m, latent] each, "means" and perhaps "log_variances".
            skipped: {index: reason} of the others.

        Raises:
            FastvaeError: they cannot be written.
        """
        self._waiting.append(_Batch({"indices": indices, **rows}, {str(i): reason for i, reason in skipped.items()}))
        if sum(map(len, self._waiting)) >= _LARGEST or time.monotonic() - self._since >= _SECONDS:
            self.flush()

    def flush(self) -> None:
        """Writes what has not been written yet as a part.

        Raises:
            FastvaeError: it cannot be written.
        """
        waiting = self._waiting
        if not (count := sum(map(len, waiting))):
            return
        names = waiting[0].rows
        tensors = {name: torch.from_numpy(np.concatenate([b.rows[name] for b in waiting])) for name in names}
        skipped = {index: reason for batch in waiting for index, reason in batch.skipped.items()}
        path = self.folder / f"{self.done:010d}-{self.done + count:010d}.safetensors"
        write_atomically(path, to_bytes(tensors, self._request.as_metadata() | {"skipped": json.dumps(skipped)}))
        # In this order: interrupted in between, it has nothing more to write.
        self._waiting, self.done, self._since = [], self.done + count, time.monotonic()

    def indices(self) -> np.ndarray:
        """int64 [m]: the images that could be read, of all parts."""
        return np.concatenate([np.empty(0, np.int64), *self.rows("indices")])

    def rows(self, name: str) -> Iterator[np.ndarray]:
        """A tensor of each part, in order."""
        for _, _, path in self._chain():
            with open_safetensors(path) as file:
                yield file.get_tensor(name).numpy()

    def skipped(self) -> dict[int, str]:
        """{index: reason} of the images that could not be read, of all parts."""
        found = [json.loads(metadata_of(path)["skipped"]) for _, _, path in self._chain()]
        return {int(index): reason for part in found for index, reason in part.items()}

    def remove(self) -> None:
        """Removes all parts."""
        for path in self._paths():
            path.unlink(missing_ok=True)

    def _unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)

    def _tidy(self) -> None:
        """Removes parts that do not count: damaged ones, and with `overwrite` those of something else."""
        for path in self._paths():
            metadata = _readable_metadata(path)
            difference = None if metadata is None else self._request.difference(metadata)
            if difference and not self._overwrite:
                raise UsageError(
                    f"{self.folder} holds the beginning of {difference}: choose another --out, or give --overwrite to "
                    "start again"
                )
            if metadata is None or difference:
                path.unlink(missing_ok=True)
        counted = {path for _, _, path in self._chain()}
        for path in self._paths():
            if path not in counted:
                path.unlink(missing_ok=True)

    def _chain(self) -> list[tuple[int, int, Path]]:
        """(start, stop, path) of the parts that follow one another from the first image on."""
        by_start = {int(_NAME.fullmatch(path.name)[1]): path for path in self._paths()}
        chain, start = [], 0
        while (path := by_start.get(start)) is not None and (stop := int(_NAME.fullmatch(path.name)[2])) > start:
            chain.append((start, stop, path))
            start = stop
        return chain

    def _paths(self) -> list[Path]:
        return sorted(path for path in self.folder.iterdir() if _NAME.fullmatch(path.name) and path.is_file())


def _readable_metadata(path: Path) -> dict[str, str] | None:
    """The metadata of a part; None if it is damaged."""
    try:
        with open_safetensors(path) as file:
            metadata = file.metadata() or {}
        json.loads(metadata.get("skipped", "{}"))
    except (OSError, SafetensorError, ValueError):
        return None
    return metadata
