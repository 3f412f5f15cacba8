"""Atomic writing: a file is complete under its name, or it is not there.

The incomplete file is beside its target under a name like `.fastvae-0123456789abcdef.part.png`, locked by the process
that writes it. A killed process leaves it behind; the next process that writes into that folder finds it unlocked and
removes it.
"""

import contextlib
import errno
import json
import os
import re
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fastvae.errors import FastvaeError, UsageError
from fastvae.files import locks

_ADVICE = "free some space, or choose another --out"
_TEMPORARY = re.compile(r"\.fastvae-[0-9a-f]{16}\.part(\.\w*)?")


@contextlib.contextmanager
def atomic_file(path: Path, *, advice: str = _ADVICE, durable: bool = True) -> Iterator[Path]:
    """A temporary path to write to, renamed to `path` when the block succeeds and removed when it raises.

    Creates the folder if needed, follows links, and flushes the data to the disk before renaming, so that a power
    failure leaves either the old file or the new one.

    Args:
        path: the file.
        advice: what to do if it cannot be written, for the error.
        durable: False for one of many small files, for which flushing, and looking through the folder for what killed
            processes left, would take longer than all else: call `remove_abandoned` once, and check them after a power
            failure.

    Raises:
        FastvaeError: it cannot be written.
    """
    try:
        with temporary_beside(path, tidy=durable) as (temporary, target):
            yield temporary
            if durable:
                flush(temporary)
            temporary.replace(target)
            if durable:
                flush(target.parent)
    except OSError as error:
        raise FastvaeError(f"{path} could not be written ({error.strerror or error}): {advice}") from error


@contextlib.contextmanager
def temporary_beside(path: Path, *, tidy: bool = True) -> Iterator[tuple[Path, Path]]:
    """An empty temporary file beside the target, removed at the end, and the target with links followed.

    Args:
        path: the target.
        tidy: whether to call `remove_abandoned` first.

    Raises:
        OSError: the folder cannot be created or written.
    """
    target = Path(os.path.realpath(path))
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise NotADirectoryError(errno.ENOTDIR, f"{target.parent} is not a folder") from None
    if tidy:
        remove_abandoned(target.parent)
    descriptor = None
    while descriptor is None:
        temporary = target.with_name(f".fastvae-{secrets.token_hex(8)}.part{target.suffix}")
        descriptor = locks.lock_new_file(temporary)
    if not locks.AVAILABLE:  # Windows cannot rename an open file
        os.close(descriptor)
    try:
        yield temporary, target
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        if locks.AVAILABLE:
            os.close(descriptor)


def remove_abandoned(folder: Path) -> None:
    """Removes incomplete files that killed processes left in a folder; without locks nobody can tell, and all stay."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if _TEMPORARY.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                with contextlib.suppress(OSError):
                    descriptor = os.open(entry.path, os.O_RDWR)
                    try:
                        if locks.try_lock(descriptor, if_unknown=False):
                            Path(entry.path).unlink()
                    finally:
                        os.close(descriptor)


def write_atomically(path: Path, data: bytes | str, *, advice: str = _ADVICE) -> None:
    """Writes bytes, or text as UTF-8, as `atomic_file` does."""
    with atomic_file(path, advice=advice) as temporary:
        temporary.write_bytes(data if isinstance(data, bytes) else data.encode("utf-8", "surrogateescape"))


def write_json(path: Path, values: dict[str, Any], *, advice: str = _ADVICE) -> None:
    """Writes a human-readable JSON file as `atomic_file` does."""
    write_atomically(path, json.dumps(values, indent=1) + "\n", advice=advice)


def check_writable(path: Path, flag: str = "--out") -> None:
    """Call before starting the work.

    Raises:
        UsageError: no file can be written there: it is a folder or a device, or its folder is not writable.
    """
    if obstacle := _obstacle(path):
        raise UsageError(f"{flag} {path}: {obstacle}")


def _obstacle(path: Path) -> str | None:
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        mode = None
    except OSError as error:
        return error.strerror or str(error)
    if mode is not None and not stat.S_ISREG(mode):
        return f"{path} is a folder" if stat.S_ISDIR(mode) else f"{path} is a device or a pipe, not a file"
    target = Path(os.path.realpath(path))
    # os.path returns False for a folder that may not be read; pathlib may raise.
    above = next(folder for folder in (target.parent, *target.parent.parents) if os.path.exists(folder))  # noqa: PTH110
    if not os.path.isdir(above) or not os.access(above, os.W_OK):  # noqa: PTH112
        return f"{above} is not a folder that can be written into"
    return None


def flush(path: Path) -> None:
    """Flushes a file, or a folder's list of files, to the disk."""
    if os.name == "nt" and path.is_dir():
        return
    # Windows flushes what is open for writing only.
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError:
        if not path.is_dir():  # some file systems cannot flush a folder
            raise
    finally:
        os.close(descriptor)
