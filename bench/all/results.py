"""The folder of a run of all: one JSON and one archive, both complete after every stage.

all.json      machine, stages, gate, fresh tiles and what they gain, every suite's record
all.tar.gz    the folder but for itself
SUITE.json    each suite's record, with its picture
tiles.json    the table of tiles with what this run measured
profile/      the trace and the step by part
logs/         what each process printed
"""

import contextlib
import io
import json
import sys
import tarfile
from pathlib import Path
from typing import Any

from bench.all.processes import ROOT
from bench.reporting.compact_json import write_json
from fastvae.errors import FastvaeError
from fastvae.files.atomic_write import atomic_file, check_writable

RECORD, ARCHIVE = "all.json", "all.tar.gz"
# A file above it stays out of the archive: compressing it would take the time of a stage.
_MAX_BYTES = 64 << 20


def save(folder: Path, content: dict[str, Any]) -> None:
    """Writes the JSON, then the archive, each so that a reader finds a complete one at any time.

    Raises:
        FastvaeError: the disk is full, or the folder cannot be written.
    """
    content["not_in_archive"] = [str(path.relative_to(folder)) for path in _files(folder) if not _fits(path)]
    write_json(folder / RECORD, _without_places(content, folder))
    with atomic_file(folder / ARCHIVE) as temporary, tarfile.open(temporary, "w:gz", compresslevel=4) as archive:
        for path in _files(folder):
            if _fits(path):
                _add(archive, path, f"{folder.name}/{path.relative_to(folder).as_posix()}")


def _without_places(value: Any, folder: Path) -> Any:
    """The record is committed: no name of a folder of this machine in its texts, such as the last lines of a log."""
    if isinstance(value, dict):
        return {key: _without_places(each, folder) for key, each in value.items()}
    if isinstance(value, list):
        return [_without_places(each, folder) for each in value]
    if isinstance(value, str):
        for place, name in ((folder, "FOLDER"), (Path(sys.prefix), "PYTHON"), (ROOT, "."), (Path.home(), "~")):
            if len(place.parts) > 2:  # "/" and "/root" may be parts of other words
                value = value.replace(str(place), name)
    return value


def read(path: Path) -> dict[str, Any] | None:
    """The JSON that a stage left; None if it left none, or half of one."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def check_new(folder: Path) -> None:
    """Makes the folder.

    Raises:
        FastvaeError: there is something in it, or it cannot be made.
    """
    check_writable(folder / RECORD)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise FastvaeError(f"--out {folder}: expected a new or empty folder, since all of it is archived")
    except OSError as error:
        raise FastvaeError(f"--out {folder} cannot be made ({error.strerror or error}): choose another") from error


def last_lines(path: Path, count: int = 15) -> list[str]:
    """The end of a log, however long it is."""
    with contextlib.suppress(OSError), path.open("rb") as file:
        file.seek(max(path.stat().st_size - 8192, 0))
        return [line[:300] for line in file.read().decode(errors="replace").splitlines()[-count:]]
    return []


def _files(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink() and path.name != ARCHIVE and not path.name.startswith(".fastvae-")
    )


def _fits(path: Path) -> bool:
    return path.stat().st_size <= _MAX_BYTES


def _add(archive: tarfile.TarFile, path: Path, name: str) -> None:
    # Read first: a file that changed while it is added would damage the archive.
    data = path.read_bytes()
    entry = tarfile.TarInfo(name)
    entry.size, entry.mtime = len(data), int(path.stat().st_mtime)
    archive.addfile(entry, io.BytesIO(data))
