"""Resolving the paths that users give, testing what is there, and showing names in messages."""

import os
from pathlib import Path

from fastvae.errors import FastvaeError, UsageError


def resolved(given: str | os.PathLike[str]) -> Path:
    """An absolute path with "~" expanded. It need not exist.

    Links are not followed, and names that are not UTF-8 are kept (Python's surrogate escapes).

    Args:
        given: as written by the user on the command line, in Python or in a config.

    Raises:
        UsageError: it is not a path, is empty, contains a null character, or names an unknown home folder.
    """
    try:
        text = os.fsdecode(given)
    except TypeError:
        raise UsageError(f"expected a path as str or pathlib.Path; got {type(given).__name__}") from None
    if not text.strip():
        raise UsageError("a path is empty: give a file or folder, or . for the working directory")
    if "\x00" in text:
        raise UsageError(f"{text!r} contains a null character: a path must not")
    try:
        return Path(os.path.abspath(Path(text).expanduser()))  # noqa: PTH100  (resolve() would follow links)
    except RuntimeError:
        raise UsageError(f"{text}: that home folder is not known; give the full path, starting with /") from None
    except FileNotFoundError:
        raise UsageError(f"{text}: the working directory no longer exists; change to another one") from None


def exists(path: Path) -> bool:
    """Whether there is something.

    Raises:
        FastvaeError: that cannot be determined.
    """
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise FastvaeError(f"{shown(path)} cannot be read ({error.strerror or error})") from error
    return True


def is_folder(path: str | os.PathLike[str]) -> bool:
    """Whether it is a folder. Unlike pathlib, returns False if access is denied or the name is too long."""
    return os.path.isdir(path)  # noqa: PTH112


def is_file(path: str | os.PathLike[str]) -> bool:
    """Whether it is a regular file or a link to one. Returns False if access is denied."""
    return os.path.isfile(path)  # noqa: PTH113


def unfinished(path: Path) -> Path:
    """NAME-incomplete, for the results of a call that is stopped, so that an earlier call's complete ones stay."""
    return path.with_stem(f"{path.stem}-incomplete")


def shown(name: str | os.PathLike[str]) -> str:
    r"""A path or name for a message: one line that can be written to any stream.

    Line breaks and other control characters, and bytes that are not UTF-8, become escapes such as \n and \xfc.
    """
    text = os.fspath(name)
    return text if text.isprintable() else "".join(c if c.isprintable() else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    byte = ord(character) - 0xDC00  # Python's surrogate escapes for bytes that are not UTF-8
    return f"\\x{byte:02x}" if 0x80 <= byte <= 0xFF else character.encode("unicode_escape").decode()
