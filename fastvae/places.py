"""Where a path that a person gave leads: the one place that expands and resolves them."""

import os
import re
from pathlib import Path

from fastvae.errors import UsageError

_SURROGATE = re.compile("[\ud800-\udfff]")


def resolved(given: str | os.PathLike[str]) -> Path:
    """An absolute path, with "~" expanded, which means the same from every working directory. It need not exist.

    Links stay links, and names that are not UTF-8 stay what they are (Python's surrogate escapes).

    Args:
        given: what a person wrote: on a command line, in Python, in a config.

    Raises:
        UsageError: it is empty, holds a null character, or names a home folder that is not known.
    """
    text = os.fspath(given)
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


def printable(text: str | os.PathLike[str]) -> str:
    """A path, or words with paths in them, as text that can be written in UTF-8: what is none in it becomes U+FFFD."""
    return _SURROGATE.sub("\ufffd", os.fspath(text))
