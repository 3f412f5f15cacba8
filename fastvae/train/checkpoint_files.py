"""The files of a run's checkpoints: their names, finding them, reading them, removing them.

A checkpoint is a folder `step-00000500` below `checkpoints` with

    model.safetensors       the trained networks, keys "encoder.…", "decoder.…", "critic.…"; the config in the metadata
    optimizer.safetensors   the optimisers' state and the state of the noise generator
    state.json              step, format version, seconds of training, which images it was trained on

It is written and removed under another name, so that a folder of that name is always complete.
"""

import contextlib
import logging
import re
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from safetensors import SafetensorError
from torch import Tensor

from fastvae.errors import FastvaeError
from fastvae.files import locks
from fastvae.files.reading import Malformed, conform, open_regular, parse_json
from fastvae.files.tensor_file import open_safetensors
from fastvae.renamed import renamed_config

FORMAT = 1
MODEL, OPTIMIZER, STATE = "model.safetensors", "optimizer.safetensors", "state.json"
# A folder or file with a name of another form is not ours, and is neither read as a checkpoint nor removed.
_NAME = re.compile(r"step-(\d{8,18})")
_LEFT = re.compile(r"\.step-\d{8,18}\.(part|old)")
# What torch.compile and DataParallel put before the names of a module that they wrap.
_WRAPPERS = re.compile(r"(^|(?<=\.))(module|_orig_mod)\.")
_FLOATS = {"F64", "F32", "F16", "BF16"}
_INTEGERS = {"I64", "I32", "I16", "I8", "U64", "U32", "U16", "U8"}
# What safetensors and torch raise on files that are damaged.
_UNREADABLE = (SafetensorError, OSError, LookupError, TypeError, ValueError, RuntimeError, ArithmeticError, MemoryError)
_logger = logging.getLogger("fastvae")
Result = TypeVar("Result")


def name_of(step: int) -> str:
    """What the checkpoint of a step is called."""
    return f"step-{step:08d}"


def step_of(checkpoint: Path) -> int | None:
    """The step that a checkpoint's name says, or None if it is not named as one."""
    match = _NAME.fullmatch(checkpoint.name)
    step = int(match[1]) if match else None
    return step if step is not None and checkpoint.name == name_of(step) else None


def checkpoints(folder: Path) -> list[Path]:
    """All complete checkpoints of a folder, oldest first.

    Raises:
        FastvaeError: the folder may not be looked into.
    """
    try:
        found = [path for path in folder.iterdir() if step_of(path) is not None and path.is_dir()]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise FastvaeError(f"{folder} cannot be looked into ({error.strerror})") from error
    return sorted(found, key=step_of)


def latest(run: Path) -> Path:
    """The newest checkpoint of a run folder.

    Raises:
        FastvaeError: there is no such folder, it is not a run's, or it has no checkpoint yet.
    """
    check_run(run)
    found = checkpoints(run / "checkpoints")
    if not found:
        raise FastvaeError(
            f"{run} holds no checkpoint: the run was stopped before its first one, or it is still to come. "
            f"`fastvae train --resume {run}` begins it again with its settings"
        )
    return found[-1]


def check_run(run: Path) -> None:
    """Raises FastvaeError unless this is the folder of a run."""
    if not run.exists():
        raise FastvaeError(f"there is no run folder {run}; `fastvae train demo --out {run}` would make one")
    if not run.is_dir():
        raise FastvaeError(f"{run} is a file; the folder of a run, one of its checkpoints or a saved folder is wanted")
    if not (run / "config.json").is_file() and not checkpoints(run / "checkpoints"):
        raise FastvaeError(
            f"{run} is not the folder of a run (it has no config.json and no checkpoints), nor a checkpoint or a saved "
            "model (it has no model.safetensors): check the path"
        )


def named_run(path: Path) -> tuple[Path, Path | None]:
    """The run that a path means, and the checkpoint that it names in it or None.

    Args:
        path: a run's folder, one of its checkpoints, a file of one, or its folder of checkpoints.
    """
    if path.name in (MODEL, OPTIMIZER, STATE) and path.parent.parent.name == "checkpoints":
        path = path.parent
    if path.name == "checkpoints" and (path.parent / "config.json").is_file():
        return path.parent, None
    if path.parent.name == "checkpoints" and (path / STATE).exists():  # whatever it is called: a person's copy
        return path.parent.parent, path
    return path, None


def read_newest(run: Path, read: Callable[[Path], Result]) -> Result:
    """`read(checkpoint)` of a run's newest checkpoint, which is not removed meanwhile.

    Raises:
        FastvaeError: as `latest`, and what `read` raises.
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
    """Removes all but the newest `keep` checkpoints and those that somebody is reading."""
    for checkpoint in checkpoints(folder)[:-keep]:
        with locks.removing(checkpoint) as free:
            if free:
                remove(checkpoint)


def remove(checkpoint: Path) -> None:
    """Removes a checkpoint: its name first, so that no half of one is ever seen under it. A link is not ours."""
    if checkpoint.is_symlink():
        return
    old = checkpoint.with_name(f".{checkpoint.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    with contextlib.suppress(OSError):
        checkpoint.rename(old)
        shutil.rmtree(old, ignore_errors=True)


def tidy(folder: Path) -> None:
    """Removes what a process left that was killed while it wrote or removed a checkpoint; the run must be locked."""
    with contextlib.suppress(OSError):
        for path in folder.iterdir():
            if _LEFT.fullmatch(path.name):
                shutil.rmtree(path, ignore_errors=True)


def set_aside_after(checkpoint: Path, step: int) -> None:
    """Renames the checkpoints of later steps than this one's, so that a run goes on from it; none is lost.

    Raises:
        FastvaeError: they cannot be renamed.
    """
    for later in checkpoints(checkpoint.parent):
        if step_of(later) > step:
            names = (f"later-{later.name}", *(f"later-{later.name}-{number}" for number in range(2, 1000)))
            aside = next(later.with_name(name) for name in names if not later.with_name(name).exists())
            try:
                later.rename(aside)
            except OSError as error:
                raise FastvaeError(f"{later} cannot be renamed ({error.strerror}), to go on before it") from error
            _logger.warning("%s is later than the checkpoint to go on from, and is kept as %s", later, aside.name)


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
    """What was written into a model.safetensors beside the tensors: format, step, config, and perhaps run.

    Returns:
        {"format": 1, "step": an integer, 0 or more, "config": an object, ...}; what else is there is unchecked.

    Raises:
        FastvaeError: the file is missing, damaged, or not one of fastvae's.
    """
    with _opened(path) as file:
        metadata = file.metadata() or {}
    if "fastvae" not in metadata:
        raise FastvaeError(f"{path} is a safetensors file, but not one of fastvae's: it carries no config")
    try:
        values = parse_json(metadata["fastvae"])
        _check_format(path, values)
        step = conform(values.get("step", 0), int, "step")
        if step < 0:
            raise Malformed(f"step must be 0 or more; got {step}")
        config = conform(values.get("config"), dict[str, Any], "config")
    except Malformed as error:
        raise FastvaeError(f"the config in {path} cannot be read ({error}): has the file been edited?") from error
    return {**values, "step": step, "config": renamed_config(config)}


def read_like(path: Path, expected: Mapping[str, Tensor], *, prefixes: Iterable[str] = ("",)) -> dict[str, Tensor]:
    """Tensors of a safetensors file that have the names, shapes and kinds of numbers of others.

    Names, shapes and dtypes are compared before anything is read. A name in the file may have the prefixes that
    torch.compile and DataParallel give.

    Args:
        path: the file.
        expected: what must be there, by name; may be on the device "meta".
        prefixes: of the names that matter; every such name in the file must be expected.

    Returns:
        The tensors by expected name, in the expected dtypes.

    Raises:
        FastvaeError: the file is missing, damaged, or of another architecture.
    """
    prefixes = tuple(prefixes)
    with _opened(path) as file:
        stored = {plain: name for name in file.keys() if (plain := _WRAPPERS.sub("", name)).startswith(prefixes)}  # noqa: SIM118
        slices = {plain: file.get_slice(name) for plain, name in stored.items()}
        found = {plain: (list(part.get_shape()), str(part.get_dtype())) for plain, part in slices.items()}
        _check_same(path, found, expected)
        # Copies: what safetensors gives is a map of the file, which changes, or ends the process, as the file does.
        return {plain: file.get_tensor(stored[plain]).to(like.dtype, copy=True) for plain, like in expected.items()}


def tensor_shapes(path: Path) -> dict[str, list[int]]:
    """The shape of each tensor of a safetensors file, by name; nothing is read but the header.

    Raises:
        FastvaeError: the file is missing or damaged.
    """
    with _opened(path) as file:
        return {_WRAPPERS.sub("", name): list(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118


def damaged(path: Path, error: Exception) -> FastvaeError:
    """The error of a checkpoint's file that cannot be used."""
    checkpoint = path.parent
    older = [c for c in checkpoints(checkpoint.parent) if step_of(checkpoint) and step_of(c) < step_of(checkpoint)]
    advice = (
        f"the checkpoint before it is {older[-1]}: `fastvae train --resume {older[-1]}` goes on from there"
        if older
        else "there is no earlier checkpoint beside it"
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
        raise Malformed("there is no format version in it")
    if values["format"] != FORMAT:
        raise FastvaeError(
            f"{path} has checkpoint format {values['format']}; this version reads {FORMAT}. Use the one that wrote it"
        )


def _check_same(path: Path, found: Mapping[str, tuple[list[int], str]], expected: Mapping[str, Tensor]) -> None:
    wanted = {name: list(tensor.shape) for name, tensor in expected.items()}
    differing = sorted(found.keys() ^ wanted.keys()) or [k for k in wanted if found[k][0] != wanted[k]]
    if differing:
        key = differing[0]
        has = found[key][0] if key in found else "nothing"
        raise FastvaeError(
            f"{path} is of another architecture: {key} is {has} there and {wanted.get(key, 'nothing')} here. "
            "Has its config been edited?"
        )
    for name, (_, dtype) in found.items():
        if dtype not in (_FLOATS if expected[name].dtype.is_floating_point else _INTEGERS):
            kind = str(expected[name].dtype).removeprefix("torch.")
            raise FastvaeError(f"{path} is damaged: {name} holds {dtype} where {kind} is expected")
