"""Where a command may write: not over what it reads, and not over the files of a run."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

from fastvae.errors import UsageError
from fastvae.files.atomic_write import check_writable
from fastvae.files.places import is_folder

# What training writes into a run's folder, and `save_pretrained` into one of its own.
_OF_A_RUN = re.compile(
    r"config\.json|environment\.json|stats\.jsonl|(checkpoints|tensorboard)/.*|pictures/.*-\d{8}\.png"
)
_OF_A_SAVED_FOLDER = re.compile(
    r"model\.safetensors|optimizer\.safetensors|state\.json|config\.json|README\.md|reconstructions\.png"
)
# From the folder of a checkpoint's file up to its run.
_DEPTH = 3


def check_json(path: Path, flag: str = "--out") -> None:
    """Call before starting the work.

    Raises:
        UsageError: JSON cannot be written there, the name does not end in .json, or it is a file of a run.
    """
    check_writable(path, flag)
    if path.suffix.lower() != ".json":
        raise UsageError(f"{flag} must end in .json; got {path}")
    check_not_read(path, [], flag)


def check_not_read(path: Path, inputs: Sequence[Path], flag: str = "--out") -> None:
    """Call before starting the work.

    Args:
        path: where a file is to be written.
        inputs: files and folders that are read.
        flag: that named the path.

    Raises:
        UsageError: the path leads, however it is spelled, to one of the inputs, or to a file in a folder of them that
            exists or would be read as a picture, or to a file that training or `save_pretrained` wrote.
    """
    from fastvae.data.sources.listing import SUFFIXES  # as in `places`

    for given in inputs:
        if is_folder(given):
            if _leads_to(path, given) and (path.exists() or path.suffix.lower() in SUFFIXES):
                raise UsageError(f"{flag} {path} lies in {given}, which is read: choose another folder")
        elif _leads_to(path, given):
            raise UsageError(f"{flag} {path} would be written over {given}, which is read: choose another name")
    if not path.exists():
        return
    if (owner := _owner(path)) is not None:
        raise UsageError(f"{flag} {path} is a file of {owner}, which would lose it: choose another name")


def places(data: str | None) -> list[Path]:
    """The file or folder that a command's --data names: one, or none if it is not given, the embedded data set, or on
    the Hub.

    Raises:
        UsageError: it leads nowhere.
    """
    from fastvae.data.dataset import EMBEDDED  # with PyTorch, for which --help should not wait
    from fastvae.data.sources.hub import is_on_hub, place_of

    return [] if data in (None, EMBEDDED) or is_on_hub(place := place_of(data)) else [place]


def _leads_to(path: Path, given: Path) -> bool:
    """Whether a path is that file, or in that folder; it need not exist."""
    return any(_are_same(above, given) for above in (path, *Path(os.path.realpath(path)).parents))


def _are_same(path: Path, given: Path) -> bool:
    try:
        return path.samefile(given)
    except OSError:
        return False


def _owner(path: Path) -> Path | None:
    """The folder of a run, or a saved one, that the file is a part of."""
    path = Path(os.path.realpath(path))
    for folder in path.parents[:_DEPTH]:
        name = path.relative_to(folder).as_posix()
        if (folder / "checkpoints").is_dir() and (folder / "config.json").is_file() and _OF_A_RUN.fullmatch(name):
            return folder
        if (folder / "model.safetensors").is_file() and _OF_A_SAVED_FOLDER.fullmatch(name):
            return folder
    return None
