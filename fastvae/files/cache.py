"""The cache folder, for files that can be made again: downloads, the compiled engine, prepared data sets."""

import contextlib
import logging
import os
import stat
import tempfile
from functools import cache
from pathlib import Path

from fastvae.errors import FastvaeError, UsageError
from fastvae.files.places import is_file, resolved

# For errors: what to do if a file cannot be written there.
ADVICE = "free some space, or name another cache folder in FASTVAE_CACHE"
_logger = logging.getLogger("fastvae")


def cache_folder() -> Path:
    """The cache folder; it exists and is writable.

    `$FASTVAE_CACHE`, else `$XDG_CACHE_HOME/fastvae`, else `~/.cache/fastvae`. If the last two cannot be used (no home
    folder, a read-only file system), `temporary_cache` with a warning.

    Raises:
        FastvaeError: the folder in FASTVAE_CACHE cannot be created or written.
    """
    if own := os.environ.get("FASTVAE_CACHE"):
        folder = resolved(own)
        if (why := _obstacle(folder)) is not None:
            raise FastvaeError(f"the cache folder {folder} {why}: set FASTVAE_CACHE to another one")
        return folder
    try:
        folder = _usual_folder()
        why = _obstacle(folder)
    except UsageError:
        folder, why = None, "cannot be used, since the home folder is unknown"
    if why is None:
        return folder
    return _instead_of(str(folder or "~/.cache/fastvae"), why)


def kept_file(name: str) -> Path | None:
    """A file that is in the cache already, even if the cache is read-only; None if it is not there.

    Args:
        name: file name in the cache folder.
    """
    own = os.environ.get("FASTVAE_CACHE")
    # The second one matters if the first is read-only and lacks the file, or cannot be used.
    for folder in (lambda: resolved(own) if own else _usual_folder(), cache_folder):
        with contextlib.suppress(FastvaeError):
            path = folder() / name
            if is_file(path):
                return path
    return None


def temporary_cache() -> Path:
    """A folder in the system's temporary folder. Only this user can write it, since it holds programs.

    Raises:
        FastvaeError: it cannot be created, or another user created it.
    """
    user = os.getuid() if hasattr(os, "getuid") else "user"
    folder = Path(tempfile.gettempdir()) / f"fastvae-{user}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        status = folder.lstat()
    except OSError as error:
        raise FastvaeError(f"cannot create {folder} ({error.strerror}): set FASTVAE_CACHE to a folder") from error
    if hasattr(os, "getuid"):
        private = stat.S_ISDIR(status.st_mode) and status.st_uid == user and not status.st_mode & 0o022
        if not private:
            raise FastvaeError(
                f"{folder} must be a folder that only this user can write: set FASTVAE_CACHE to another one"
            )
    if (why := _obstacle(folder)) is not None:
        raise FastvaeError(f"{folder} {why}: set FASTVAE_CACHE to another one")
    return folder


def _usual_folder() -> Path:
    shared = os.environ.get("XDG_CACHE_HOME")
    return (resolved(shared) if shared else resolved("~/.cache")) / "fastvae"


def _obstacle(folder: Path) -> str | None:
    """Why files cannot be written there, or None."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        return f"cannot be created ({error.strerror})"
    return None if os.access(folder, os.W_OK | os.X_OK) else "cannot be written"


@cache
def _instead_of(usual: str, why: str) -> Path:
    folder = temporary_cache()
    _logger.warning("%s %s: using %s as the cache instead; set FASTVAE_CACHE to choose another one", usual, why, folder)
    return folder
