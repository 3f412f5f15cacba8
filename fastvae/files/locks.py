"""Locks on files and folders; the system releases them when their process ends, however it ends.

The locks are advisory (flock): only fastvae's own processes observe them, on one machine. Where they are missing
(Windows, some network file systems) every lock is granted and nothing is protected.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

AVAILABLE = fcntl is not None


def try_lock(descriptor: int, *, shared: bool = False, if_unknown: bool = True) -> bool:
    """Locks an open file or folder until it is closed, without waiting.

    Args:
        descriptor: of the file or folder.
        shared: several processes may hold a shared lock, but not while one holds an exclusive lock.
        if_unknown: what to return where there are no locks, so that nobody can tell.

    Returns:
        False if another process holds a conflicting lock.
    """
    if fcntl is None:
        return if_unknown
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # this file system has no locks
        return if_unknown
    return True


@contextlib.contextmanager
def reading(folder: Path) -> Iterator[None]:
    """Protects a folder from removal: inside the block `removing(folder)` yields False.

    Raises:
        FileNotFoundError: the folder has been removed.
    """
    if not AVAILABLE:
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        # It may have been removed between opening and locking.
        if not try_lock(descriptor, shared=True) or not _is_at(descriptor, folder):
            raise FileNotFoundError(f"{folder} is being removed")
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def removing(folder: Path) -> Iterator[bool]:
    """Yields True if nobody is reading the folder; inside the block no reader can start."""
    if not AVAILABLE:
        yield True
        return
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        yield True
        return
    try:
        yield try_lock(descriptor)
    finally:
        os.close(descriptor)


def lock_new_file(path: Path) -> int | None:
    """Creates a file and locks it. Returns None if another process removed it meanwhile.

    Raises:
        OSError: the file exists or cannot be created.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
    if try_lock(descriptor) and _is_at(descriptor, path):
        return descriptor
    os.close(descriptor)
    return None


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except OSError:
        return False
