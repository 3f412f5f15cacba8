"""Files that are complete under their names or not there, and refused before the work where they cannot be written.

What is not complete yet lies beside its target under a name of the form `.fastvae-0123456789abcdef.part.png`, locked by
the process that writes it. A process that is killed leaves it behind; the next one that writes into that folder finds
it unlocked and removes it.
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
def atomic_file(path: Path, *, advice: str = _ADVICE) -> Iterator[Path]:
    """Gives a name to write to, which becomes `path` if the block ends well and is removed if it does not.

    The folder is made where needed, a link is followed to the file that it names, and the data are on the disk before
    they get their name, so that a power failure leaves the old file or the new one.

    Args:
        path: the file.
        advice: what to do where it cannot be written.

    Raises:
        FastvaeError: it cannot be written.
    """
    try:
        with temporary_beside(path) as (temporary, target):
            yield temporary
            flush(temporary)
            temporary.replace(target)
            flush(target.parent)
    except OSError as error:
        raise FastvaeError(f"{path} could not be written ({error.strerror or error}): {advice}") from error


@contextlib.contextmanager
def temporary_beside(path: Path) -> Iterator[tuple[Path, Path]]:
    """Gives an empty file of ours beside the target, and the target, links followed; removes the file at the end.

    Raises:
        OSError: the folder cannot be made or written.
    """
    target = Path(os.path.realpath(path))
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise NotADirectoryError(errno.ENOTDIR, f"{target.parent} is not a folder") from None
    remove_abandoned(target.parent)
    descriptor = None
    while descriptor is None:
        temporary = target.with_name(f".fastvae-{secrets.token_hex(8)}.part{target.suffix}")
        descriptor = locks.lock_new_file(temporary)
    if not locks.AVAILABLE:  # Windows renames no file that is open
        os.close(descriptor)
    try:
        yield temporary, target
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        if locks.AVAILABLE:
            os.close(descriptor)


def remove_abandoned(folder: Path) -> None:
    """Removes what killed processes have left unfinished in a folder."""
    if not locks.AVAILABLE:  # then there is no telling whether its process lives
        return
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if _TEMPORARY.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                with contextlib.suppress(OSError):
                    descriptor = os.open(entry.path, os.O_RDWR)
                    try:
                        if locks.try_lock(descriptor):
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
        UsageError: a file cannot be written there: it is a folder or a device, or the folder above is missing the
            right.
    """
    if why := _why_not_writable(path):
        raise UsageError(f"{flag} {path}: {why}")


def _why_not_writable(path: Path) -> str | None:
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        mode = None
    except OSError as error:
        return error.strerror or str(error)
    if mode is not None and not stat.S_ISREG(mode):
        return f"{path} is a folder" if stat.S_ISDIR(mode) else f"{path} is a device or a pipe, not a file"
    target = Path(os.path.realpath(path))
    # os.path answers no where a folder may not be looked into; pathlib's own may raise.
    above = next(folder for folder in (target.parent, *target.parent.parents) if os.path.exists(folder))  # noqa: PTH110
    if not os.path.isdir(above) or not os.access(above, os.W_OK):  # noqa: PTH112
        return f"{above} is not a folder that can be written into"
    return None


def flush(path: Path) -> None:
    """Waits until the disk holds a file, or which files a folder has."""
    if os.name == "nt" and path.is_dir():
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError:
        if not path.is_dir():  # some file systems cannot flush a folder
            raise
    finally:
        os.close(descriptor)
