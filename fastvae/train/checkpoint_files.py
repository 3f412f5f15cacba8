"""The files of a run's checkpoints: naming, finding, reading and removing them.

A checkpoint is a folder `step-00000500` in the run's folder `checkpoints` with

    model.safetensors       the trained networks, keys "encoder.…", "decoder.…", "critic.…"; with `--ema` the average of
                            their weights, keys "ema.encoder.…", "ema.decoder.…"; the config in the metadata
    optimizer.safetensors   the optimisers' state and the state of each rank's noise generator
    state.json              step, format version, seconds of training, place in the epoch, identity of the images

It is written and removed under another name, so that a folder with that name is always complete.
"""

import contextlib
import logging
import re
import shlex
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from fastvae.errors import FastvaeError
from fastvae.files import locks
from fastvae.files.places import exists, is_file, is_folder, shown
from fastvae.files.reading import Malformed, conform, open_regular, parse_json
from fastvae.files.tensor_file import SafetensorError, open_safetensors
from fastvae.renamed import renamed_config

FORMAT = 1
# Prefix of the averages' names in a checkpoint: "ema.encoder.…" beside "encoder.…".
AVERAGES = "ema."
MODEL, OPTIMIZER, STATE = "model.safetensors", "optimizer.safetensors", "state.json"
# Folders and files with other names are not checkpoints: they are neither read nor removed.
_NAME = re.compile(r"step-(\d{8,18})")
_LEFTOVER = re.compile(r"\.step-\d{8,18}\.(part|old)")
# Prefixes that torch.compile and DataParallel add to the names of a wrapped module.
_WRAPPERS = re.compile(r"(^|(?<=\.))(module|_orig_mod)\.")
_FLOATS = {"F64", "F32", "F16", "BF16"}
_INTEGERS = {"I64", "I32", "I16", "I8", "U64", "U32", "U16", "U8"}
# What safetensors and torch raise for damaged files.
_UNREADABLE = (SafetensorError, OSError, LookupError, TypeError, ValueError, RuntimeError, ArithmeticError, MemoryError)
_logger = logging.getLogger("fastvae")
Result = TypeVar("Result")


def name_of(step: int) -> str:
    """The name of a step's checkpoint."""
    return f"step-{step:08d}"


def step_of(checkpoint: Path) -> int | None:
    """The step in a checkpoint's name, or None if the name is not a checkpoint's."""
    match = _NAME.fullmatch(checkpoint.name)
    step = int(match[1]) if match else None
    return step if step is not None and checkpoint.name == name_of(step) else None


def checkpoints(folder: Path) -> list[Path]:
    """All checkpoints of a folder, oldest first.

    Raises:
        FastvaeError: the folder cannot be listed.
    """
    try:
        paths = [path for path in folder.iterdir() if step_of(path) is not None and path.is_dir()]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise FastvaeError(f"{folder} cannot be listed ({error.strerror})") from error
    return sorted(paths, key=step_of)


def latest(run: Path) -> Path:
    """The newest checkpoint of a run folder.

    Raises:
        FastvaeError: there is no such folder, it is not a run's folder, or it has no checkpoint yet.
    """
    check_run(run)
    saved = checkpoints(run / "checkpoints")
    if not saved:
        raise FastvaeError(
            f"{run} holds no checkpoint: the run was stopped before its first one, or has not reached it yet. "
            f"`{resume_command(run)}` starts it again with its settings"
        )
    return saved[-1]


def check_run(run: Path) -> None:
    """Raises FastvaeError unless this is the folder of a run."""
    if not exists(run):
        raise FastvaeError(f"there is no run folder {run}; `fastvae train demo --out {run}` would create it")
    if not is_folder(run):
        raise FastvaeError(f"expected the folder of a run, of a checkpoint or of a saved model; {run} is a file")
    if not is_file(run / "config.json") and not checkpoints(run / "checkpoints"):
        raise FastvaeError(
            f"{run} is neither the folder of a run (no config.json, no checkpoints) nor a checkpoint or a saved model "
            "(no model.safetensors): check the path"
        )


def named_run(path: Path) -> tuple[Path, Path | None]:
    """The run that a path belongs to, and the checkpoint that it names, or None.

    Args:
        path: of a run, of its folder of checkpoints, of one checkpoint, or of a file in one.
    """
    if path.name in (MODEL, OPTIMIZER, STATE) and path.parent.parent.name == "checkpoints":
        path = path.parent
    if path.name == "checkpoints" and is_file(path.parent / "config.json"):
        return path.parent, None
    if path.parent.name == "checkpoints" and is_file(path / STATE):  # with any name: it may be a renamed copy
        return path.parent.parent, path
    return path, None


def read_newest(run: Path, read: Callable[[Path], Result]) -> Result:
    """`read(checkpoint)` of a run's newest checkpoint, which is locked against removal meanwhile.

    Raises:
        FastvaeError: as `latest`; also what `read` raises.
    """
    while True:
        checkpoint = latest(run)
        try:
            with locks.reading(checkpoint):
                return read(checkpoint)
        except FileNotFoundError:
            if checkpoint.exists():
                raise


def prune(folder: Path, keep: int) -> None:
    """Removes all checkpoints but the newest `keep` and those that are being read."""
    for checkpoint in checkpoints(folder)[:-keep]:
        with locks.removing(checkpoint) as free:
            if free:
                remove(checkpoint)


def remove(checkpoint: Path) -> None:
    """Removes a checkpoint, after renaming it so that no incomplete one is ever visible. Symbolic links are kept."""
    if checkpoint.is_symlink():
        return
    old = checkpoint.with_name(f".{checkpoint.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    with contextlib.suppress(OSError):
        checkpoint.rename(old)
        shutil.rmtree(old, ignore_errors=True)


def tidy(folder: Path) -> None:
    """Removes what a killed process left of a checkpoint that it was writing or removing; the run must be locked."""
    with contextlib.suppress(OSError):
        for path in folder.iterdir():
            if _LEFTOVER.fullmatch(path.name):
                shutil.rmtree(path, ignore_errors=True)


def set_aside_after(checkpoint: Path, step: int) -> None:
    """Renames checkpoints later than this one's step, so that a run can continue from it; none is lost.

    Raises:
        FastvaeError: a checkpoint cannot be renamed.
    """
    for later in checkpoints(checkpoint.parent):
        if step_of(later) > step:
            names = (f"later-{later.name}", *(f"later-{later.name}-{number}" for number in range(2, 1000)))
            aside = next(later.with_name(name) for name in names if not later.with_name(name).exists())
            try:
                later.rename(aside)
            except OSError as error:
                raise FastvaeError(
                    f"{later} cannot be renamed ({error.strerror}), so training cannot continue from an earlier step"
                ) from error
            _logger.warning("%s is later than the checkpoint to continue from; it is kept as %s", later, aside.name)


def adopt(checkpoint: Path, step: int) -> None:
    """Gives a checkpoint that somebody has renamed a copy under its own name, unless there is one, as the newest.

    Raises:
        FastvaeError: it cannot be copied.
    """
    own = checkpoint.with_name(name_of(step))
    if own.exists():
        return
    part = own.with_name(f".{own.name}.part")
    try:
        shutil.copytree(checkpoint, part)
        part.rename(own)
    except OSError as error:
        shutil.rmtree(part, ignore_errors=True)
        raise FastvaeError(
            f"{checkpoint} cannot be copied to {own.name} ({error.strerror or error}), so training cannot go on from it"
        ) from error


def read_state(checkpoint: Path, hint: type[Result]) -> Result:
    """state.json as a dataclass.

    Raises:
        FastvaeError: the file is missing or damaged, or of another format.
    """
    path = checkpoint / STATE
    try:
        with open_regular(path) as file:
            values = parse_json(file.read(1 << 20))
        _check_format(path, values)
        return conform(values, hint, "state")
    except (OSError, Malformed) as error:
        raise damaged(path, error) from error


def read_metadata(path: Path) -> dict[str, Any]:
    """The metadata of a model.safetensors: format, step, config, and in a saved model also run.

    Returns:
        {"format": 1, "step": an integer >= 0, "config": an object, ...}. Other fields are not checked. Old names of
        renamed options in the config are replaced.

    Raises:
        FastvaeError: the file is missing, damaged, or was not written by fastvae.
    """
    with _opened(path) as file:
        metadata = file.metadata() or {}
    if "fastvae" not in metadata:
        raise FastvaeError(f"{path} was not written by fastvae: it is a safetensors file without a config")
    try:
        values = parse_json(metadata["fastvae"])
        _check_format(path, values)
        step = conform(values.get("step", 0), int, "step")
        if step < 0:
            raise Malformed(f"step must be 0 or more; got {step}")
        config = conform(values.get("config"), dict[str, Any], "config")
    except Malformed as error:
        raise FastvaeError(f"the config in {path} cannot be read ({error}): was the file edited?") from error
    return {**values, "step": step, "config": renamed_config(config)}


def read_like(path: Path, expected: Mapping[str, Tensor], *, prefixes: Iterable[str] = ("",)) -> dict[str, Tensor]:
    """Reads tensors from a safetensors file, after checking their names, shapes and kinds of dtype.

    Names in the file may have the prefixes that torch.compile and DataParallel add.

    Args:
        path: of the file.
        expected: tensors of the expected names, shapes and dtypes; may be on the device "meta".
        prefixes: only names that start with one of these are read; each of them must be expected.

    Returns:
        The tensors by expected name, in the expected dtypes.

    Raises:
        FastvaeError: the file is missing, damaged, or of another architecture.
    """
    prefixes = tuple(prefixes)
    with _opened(path) as file:
        stored = {plain: name for name in file.keys() if (plain := _WRAPPERS.sub("", name)).startswith(prefixes)}  # noqa: SIM118
        slices = {plain: file.get_slice(name) for plain, name in stored.items()}
        headers = {plain: (list(s.get_shape()), str(s.get_dtype())) for plain, s in slices.items()}
        _check_same(path, headers, expected)
        # Copied: safetensors returns memory maps, which would change with the file, or crash if it is truncated.
        return {plain: file.get_tensor(stored[plain]).to(like.dtype, copy=True) for plain, like in expected.items()}


def read_floats(path: Path) -> dict[str, Tensor]:
    """All tensors of floating-point numbers in a safetensors file, in float32, by name.

    Raises:
        FastvaeError: the file is missing or damaged.
    """
    with _opened(path) as file:
        names = {_WRAPPERS.sub("", name): name for name in file.keys()}  # noqa: SIM118
        floats = {plain: name for plain, name in names.items() if str(file.get_slice(name).get_dtype()) in _FLOATS}
        return {plain: file.get_tensor(name).to(torch.float32, copy=True) for plain, name in floats.items()}


def tensor_shapes(path: Path) -> dict[str, list[int]]:
    """The shape of each tensor in a safetensors file, by name; reads only the header.

    Raises:
        FastvaeError: the file is missing or damaged.
    """
    with _opened(path) as file:
        return {_WRAPPERS.sub("", name): list(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118


def resume_command(place: Path) -> str:
    """What to type to go on with a run, or with a checkpoint of it."""
    return f"fastvae train --resume {shlex.quote(str(place))}"


def damaged(path: Path, error: Exception) -> FastvaeError:
    """The error for a file of a checkpoint that cannot be used."""
    checkpoint = path.parent
    older = [c for c in checkpoints(checkpoint.parent) if step_of(checkpoint) and step_of(c) < step_of(checkpoint)]
    advice = (
        f"the checkpoint before it is {older[-1]}: `{resume_command(older[-1])}` continues from it"
        if older
        else "there is no earlier checkpoint"
    )
    reason = " ".join(str(error).split())
    return FastvaeError(f"{path} is missing or damaged ({reason[:200]}); {advice}")


@contextlib.contextmanager
def _opened(path: Path):
    try:
        with open_safetensors(path) as file:
            yield file
    except FastvaeError:
        raise
    except _UNREADABLE as error:
        raise damaged(path, error) from error


def _check_format(path: Path, values: Any) -> None:
    if not isinstance(values, dict) or not isinstance(values.get("format"), int):
        raise Malformed("it has no format version")
    if values["format"] != FORMAT:
        raise FastvaeError(
            f"this version reads checkpoint format {FORMAT}; {path} has format {values['format']}: use the version "
            "that wrote it"
        )


def _check_same(path: Path, headers: Mapping[str, tuple[list[int], str]], expected: Mapping[str, Tensor]) -> None:
    shapes = {name: list(tensor.shape) for name, tensor in expected.items()}
    differing = sorted(headers.keys() ^ shapes.keys()) or [k for k in shapes if headers[k][0] != shapes[k]]
    if differing:
        key = differing[0]
        there = headers[key][0] if key in headers else "missing"
        raise FastvaeError(
            f"{path} is of another architecture: expected {shown(key)} as {shapes.get(key, 'absent')}; it is {there}. "
            "Was its config edited?"
        )
    for name, (_, dtype) in headers.items():
        if dtype not in (_FLOATS if expected[name].dtype.is_floating_point else _INTEGERS):
            kind = str(expected[name].dtype).removeprefix("torch.")
            raise FastvaeError(f"{path} is damaged: {name} holds {dtype} where {kind} is expected")
