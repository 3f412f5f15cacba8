"""A file under its name only when it is whole and has been found right."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from fastvae.errors import FastvaeError


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Gives a name to write to, which becomes `path` if the block ends well and is removed if it does not.

    Raises:
        FastvaeError: it cannot be written.
    """
    temporary = path.with_name(f".part-{path.name}")
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
