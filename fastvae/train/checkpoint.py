"""Checkpoints: safetensors for tensors, JSON for the rest, nothing pickled.

A checkpoint is a folder `step-00000500` with

    model.safetensors       the trained networks, keys "encoder.…", "decoder.…", "critic.…"; the config in the metadata
    optimizer.safetensors   the optimisers' state and the state of the noise generator
    state.json              step, format version, seconds of training

It is written under another name and renamed when it is whole, so that a folder of that name is always complete.
"""

import json
import logging
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from fastvae.errors import FastvaeError
from fastvae.objectives import Objective, Update

FORMAT = 1
_PREFIX = "step-"
_logger = logging.getLogger("fastvae")


@dataclass(frozen=True)
class Resumed:
    """Where a checkpoint was taken: `step` steps were done."""

    step: int
    seconds: float


def save(
    folder: Path,
    *,
    step: int,
    seconds: float,
    config: dict[str, Any],
    objective: Objective,
    updates: dict[str, Update],
    noise: torch.Generator,
    keep: int,
) -> Path:
    """Writes folder/step-NNNNNNNN and removes all but the newest `keep` checkpoints.

    Raises:
        FastvaeError: the disk is full or the folder cannot be written; earlier checkpoints are untouched.
    """
    target = folder / f"{_PREFIX}{step:08d}"
    temporary = folder / f".{target.name}.part"
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        metadata = {"fastvae": json.dumps({"format": FORMAT, "step": step, "config": config})}
        save_file(_network_tensors(objective), temporary / "model.safetensors", metadata)
        tensors = {"noise": noise.get_state()}
        for name, update in updates.items():
            for index, state in update.optimizer.state_dict()["state"].items():
                tensors |= {f"{name}.{index}.{key}": value.contiguous() for key, value in state.items()}
        save_file(tensors, temporary / "optimizer.safetensors")
        state = {"format": FORMAT, "step": step, "seconds": seconds}
        (temporary / "state.json").write_text(json.dumps(state, indent=1))
        for file in (*temporary.iterdir(), temporary):
            _flush(file)
        old = temporary.with_name(f".{target.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        if target.exists():
            target.rename(old)
        temporary.rename(target)
        shutil.rmtree(old, ignore_errors=True)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        earlier = checkpoints(folder)
        last = f"the last good one is {earlier[-1]}" if earlier else "there is no earlier one"
        raise FastvaeError(
            f"could not save the checkpoint of step {step} in {folder} ({error}); {last}. "
            "Free some space or choose another folder, then continue with --resume"
        ) from error
    for old in checkpoints(folder)[:-keep]:
        shutil.rmtree(old, ignore_errors=True)
    return target


def _flush(path: Path) -> None:
    # Renaming what the disk does not hold yet would leave an empty checkpoint after a power failure.
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def checkpoints(folder: Path) -> list[Path]:
    """All complete checkpoints of a folder, oldest first."""
    return sorted(p for p in folder.glob(f"{_PREFIX}*") if p.is_dir()) if folder.is_dir() else []


def latest(run: Path) -> Path:
    """The newest checkpoint of a run folder.

    Raises:
        FastvaeError: there is no such folder, or no checkpoint in it.
    """
    if not run.is_dir():
        raise FastvaeError(f"there is no run folder {run}; `fastvae train demo --out {run}` would make one")
    found = checkpoints(run / "checkpoints")
    if not found:
        raise FastvaeError(
            f"{run} holds no checkpoint: the run stopped before its first one. Remove the folder and train "
            "again, with a smaller --checkpoint-every to have one sooner"
        )
    return found[-1]


def restore(
    checkpoint: Path,
    *,
    config: dict[str, Any],
    objective: Objective,
    updates: dict[str, Update],
    noise: torch.Generator,
) -> Resumed:
    """Loads a checkpoint into the objective's networks, the optimisers and the noise generator, in place.

    Raises:
        FastvaeError: a file is missing, damaged, or of another architecture; nothing has been changed then.
    """
    state = _read_state(checkpoint)
    tensors = read_tensors(checkpoint / "model.safetensors")
    optimizer_tensors = read_tensors(checkpoint / "optimizer.safetensors")
    check_same(checkpoint, tensors, _network_tensors(objective))
    saved = read_metadata(checkpoint / "model.safetensors")["config"]["objective"]
    if saved != json.loads(json.dumps(config))["objective"]:
        raise FastvaeError(
            f"{checkpoint} was made with other options of the objective than config.json has: has it been edited?"
        )
    for name, network in objective.networks.items():
        network.load_state_dict(_below(tensors, name))
    for name, update in updates.items():
        states: dict[int, dict[str, Tensor]] = {}
        for key, value in _below(optimizer_tensors, name).items():
            index, _, field = key.partition(".")
            states.setdefault(int(index), {})[field] = value
        groups = update.optimizer.state_dict()["param_groups"]
        update.optimizer.load_state_dict({"state": states, "param_groups": groups})
    if len(optimizer_tensors["noise"]) == len(noise.get_state()):
        noise.set_state(optimizer_tensors["noise"])
    else:
        noise.manual_seed(noise.initial_seed() + state["step"])
        _logger.warning(
            "%s is from another kind of device, whose noise cannot go on here: it is drawn anew", checkpoint
        )
    return Resumed(step=state["step"], seconds=state["seconds"])


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file.

    Raises:
        FastvaeError: the file is missing or damaged.
    """
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise _damaged(path, error) from error


def read_metadata(path: Path) -> dict[str, Any]:
    """What `save` wrote into model.safetensors beside the tensors: format, step, config.

    Raises:
        FastvaeError: the file is missing, damaged, or not one of fastvae's.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise _damaged(path, error) from error
    if "fastvae" not in metadata:
        raise FastvaeError(f"{path} is a safetensors file, but not one of fastvae's: it carries no config")
    try:
        values = json.loads(metadata["fastvae"])
        found, _ = values["format"], values["config"]
    except (ValueError, KeyError, TypeError) as error:
        raise FastvaeError(f"the config in {path} cannot be read ({error!r}): has the file been edited?") from error
    if found != FORMAT:
        raise FastvaeError(
            f"{path} has checkpoint format {found}; this version reads {FORMAT}. Use the one that wrote it"
        )
    return values


def _network_tensors(objective: Objective) -> dict[str, Tensor]:
    return {
        f"{name}.{key}": value.contiguous()
        for name, network in objective.networks.items()
        for key, value in network.state_dict().items()
    }


def _below(tensors: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    return {k.removeprefix(f"{name}."): v for k, v in tensors.items() if k.startswith(f"{name}.")}


def check_same(checkpoint: Path, found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """Raises FastvaeError, with the first difference, unless both hold the same names with the same shapes."""
    differing = sorted(found.keys() ^ expected.keys()) or [k for k in expected if found[k].shape != expected[k].shape]
    if differing:
        key = differing[0]
        has, wants = (list(t[key].shape) if key in t else "nothing" for t in (found, expected))
        raise FastvaeError(
            f"{checkpoint} is of another architecture: {key} is {has} there and {wants} here. "
            "Has its config.json been edited?"
        )


def _read_state(checkpoint: Path) -> dict[str, Any]:
    path = checkpoint / "state.json"
    try:
        state = json.loads(path.read_text())
        if state["format"] != FORMAT:
            raise FastvaeError(f"{path} has checkpoint format {state['format']}; this version reads {FORMAT}")
        return state
    except (OSError, ValueError, KeyError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> FastvaeError:
    older = [c for c in checkpoints(path.parent.parent) if c.name < path.parent.name]
    advice = (
        f"remove the folder {path.parent} to go on from {older[-1].name}"
        if older
        else "there is no older checkpoint beside it"
    )
    return FastvaeError(f"{path} is missing or damaged ({error}); {advice}")
