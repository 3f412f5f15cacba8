"""Where a path that a person gave leads, what lies there, and how a name is shown: the one place for each."""

import os
from pathlib import Path

from fastvae.errors import UsageError


def resolved(given: str | os.PathLike[str]) -> Path:
    """An absolute path, with "~" expanded, which means the same from every working directory. It need not exist.

    Links stay links, and names that are not UTF-8 stay what they are (Python's surrogate escapes).

    Args:
        given: what a person wrote: on a command line, in Python, in a config.

    Raises:
        UsageError: it is no path, empty, holds a null character, or names a home folder that is not known.
    """
    try:
        text = os.fsdecode(given)
    except TypeError:
        raise UsageError(f"a path is wanted, as text or pathlib's; got {type(given).__name__}") from None
    if not text.strip():
        raise UsageError("a path is empty: give the name of a file or folder, or . for the working directory")
    if "\x00" in text:
        raise UsageError(f"{text!r} holds a null character, which no path may")
    try:
        return Path(os.path.abspath(Path(text).expanduser()))  # noqa: PTH100  (resolve() would follow links)
    except RuntimeError:
        raise UsageError(f"{text}: that home folder is not known here; write the path out, from / on") from None
    except FileNotFoundError:
        raise UsageError(f"{text}: the working directory is gone; change into another one") from None


def is_folder(path: str | os.PathLike[str]) -> bool:
    """Whether a folder is there; False, not an error as of pathlib, where one may not look or a name is too long."""
    return os.path.isdir(path)  # noqa: PTH112


def is_file(path: str | os.PathLike[str]) -> bool:
    """Whether a regular file is there, or a link to one; False, not an error, where one may not look."""
    return os.path.isfile(path)  # noqa: PTH113


def shown(name: str | os.PathLike[str]) -> str:
    r"""A path or name as a message shows it: one line that every stream can take.

    Line breaks and other control characters, and bytes that are not UTF-8, become escapes such as \n and \xfc.
    """
    text = os.fspath(name)
    return text if text.isprintable() else "".join(c if c.isprintable() else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    byte = ord(character) - 0xDC00  # Python's stand-ins for bytes that are not UTF-8
    return f"\\x{byte:02x}" if 0x80 <= byte <= 0xFF else character.encode("unicode_escape").decode()
