"""Locks on files and folders that the system releases when their process ends, however it ends.

They are advisory (flock): they bind fastvae's own processes, on one machine and on file systems that have them. Where
there are none (Windows, some network file systems) every lock is granted, and nothing is guarded.
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


def try_lock(descriptor: int, *, shared: bool = False) -> bool:
    """Locks an open file or folder until it is closed; does not wait.

    Args:
        descriptor: of the file or folder.
        shared: several may hold such a lock, but not beside an exclusive one.

    Returns:
        False if another process holds a lock that excludes this one.
    """
    if fcntl is None:
        return True
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # this file system has no locks
        return True
    return True


@contextlib.contextmanager
def reading(folder: Path) -> Iterator[None]:
    """While it is open, `removing(folder)` gives False.

    Raises:
        FileNotFoundError: the folder has been removed.
    """
    if not AVAILABLE:
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        # Between opening and locking it may have been removed.
        if not try_lock(descriptor, shared=True) or not _is_at(descriptor, folder):
            raise FileNotFoundError(f"{folder} is being removed")
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def removing(folder: Path) -> Iterator[bool]:
    """Gives whether nobody is reading the folder; while it is open nobody begins to."""
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
    """Makes a file and locks it before anybody else can; None if somebody removed it meanwhile.

    Raises:
        OSError: the file exists or cannot be made.
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
