"""Where files that can be made again are kept: downloads, the compiled engine, prepared data sets."""

import contextlib
import logging
import os
import stat
import tempfile
from functools import cache
from pathlib import Path

from fastvae.errors import FastvaeError, UsageError
from fastvae.files.places import is_file, resolved

# What to do when a file cannot be written there.
ADVICE = "free some space, or name another cache folder in FASTVAE_CACHE"
_logger = logging.getLogger("fastvae")


def cache_folder() -> Path:
    """A folder that exists and can be written.

    It is `$FASTVAE_CACHE`, else `$XDG_CACHE_HOME/fastvae`, else `~/.cache/fastvae`. Where the last two
    cannot be had (no home folder, a read-only file system) it is `temporary_cache`, with a warning.

    Raises:
        FastvaeError: the folder that FASTVAE_CACHE names cannot be made or written.
    """
    if own := os.environ.get("FASTVAE_CACHE"):
        folder = resolved(own)
        if (why := _obstacle(folder)) is not None:
            raise FastvaeError(f"the cache folder {folder} {why}: name another one in FASTVAE_CACHE")
        return folder
    try:
        folder = _usual_folder()
        why = _obstacle(folder)
    except UsageError:
        folder, why = None, "cannot be had, as no home folder is known"
    if why is None:
        return folder
    return _instead_of(str(folder or "~/.cache/fastvae"), why)


def kept_file(name: str) -> Path | None:
    """A file that the cache holds already, also one that can be read only; None if there is none.

    Args:
        name: of the file, in the cache folder.
    """
    own = os.environ.get("FASTVAE_CACHE")
    # The second one is where that of the first can only be read, and holds other files, or cannot be had.
    for folder in (lambda: resolved(own) if own else _usual_folder(), cache_folder):
        with contextlib.suppress(FastvaeError):
            path = folder() / name
            if is_file(path):
                return path
    return None


def temporary_cache() -> Path:
    """A folder in the system's temporary one that nobody but this user can write, since programs are kept in it.

    Raises:
        FastvaeError: it cannot be made, or somebody else has made it.
    """
    user = os.getuid() if hasattr(os, "getuid") else "user"
    folder = Path(tempfile.gettempdir()) / f"fastvae-{user}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        status = folder.lstat()
    except OSError as error:
        raise FastvaeError(f"{folder} cannot be made ({error.strerror}): name a folder in FASTVAE_CACHE") from error
    if hasattr(os, "getuid"):
        private = stat.S_ISDIR(status.st_mode) and status.st_uid == user and not status.st_mode & 0o022
        if not private:
            raise FastvaeError(
                f"{folder} is not a folder that this user alone can write: name another one in FASTVAE_CACHE"
            )
    if (why := _obstacle(folder)) is not None:
        raise FastvaeError(f"{folder} {why}: name another one in FASTVAE_CACHE")
    return folder


def _usual_folder() -> Path:
    shared = os.environ.get("XDG_CACHE_HOME")
    return (resolved(shared) if shared else resolved("~/.cache")) / "fastvae"


def _obstacle(folder: Path) -> str | None:
    """Why files cannot be kept there, or None."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        return f"cannot be made ({error.strerror})"
    return None if os.access(folder, os.W_OK | os.X_OK) else "cannot be written"


@cache
def _instead_of(usual: str, why: str) -> Path:
    folder = temporary_cache()
    _logger.warning("%s %s: %s serves as the cache; FASTVAE_CACHE names another one", usual, why, folder)
    return folder
