"""Files that somebody asked for with --out: whole under their names or not there, and refused before the work."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from fastvae.errors import FastvaeError


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Gives a name to write to, which becomes `path` if the block ends well and is removed if it does not.

    Raises:
        FastvaeError: it cannot be written.
    """
    temporary = path.with_name(f".part-{os.getpid()}-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        temporary.replace(path)
    except OSError as error:
        raise FastvaeError(
            f"{path} could not be written ({error.strerror or error}): free some space, or choose another --out"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def why_not_writable(path: Path) -> str | None:
    """What keeps a file from being written there, or None; to be asked before the work, not after."""
    # os.path answers no where a folder may not be looked into; pathlib's own may raise.
    if os.path.isdir(path):  # noqa: PTH112
        return f"{path} is a folder"
    above = next(folder for folder in (path.parent, *path.parent.parents) if os.path.exists(folder))  # noqa: PTH110
    if not os.path.isdir(above) or not os.access(above, os.W_OK):  # noqa: PTH112
        return f"{above} is not a folder that can be written into"
    return None
