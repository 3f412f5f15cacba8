"""Saves and restores the state of a run. `checkpoint_files` describes the files of a checkpoint."""

import json
import logging
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastvae.data.identity import Identity
from fastvae.errors import FastvaeError
from fastvae.files.atomic_write import flush
from fastvae.files.tensor_file import SafetensorError, not_finite, to_bytes
from fastvae.objectives import Objective, Update
from fastvae.train.checkpoint_files import (
    AVERAGES,
    FORMAT,
    MODEL,
    OPTIMIZER,
    STATE,
    checkpoints,
    damaged,
    name_of,
    prune,
    read_like,
    read_metadata,
    read_state,
    remove,
    resume_command,
    step_of,
    tensor_shapes,
)
from fastvae.train.config_json import default_options
from fastvae.train.weight_average import WeightAverage

# A CPU generator has 5,056 bytes of state, a GPU's 16.
_MAX_GENERATOR_BYTES = 65536
_logger = logging.getLogger("fastvae")


class NotSaved(FastvaeError):
    """A checkpoint could not be written; earlier ones are unchanged, and the message says how to go on."""


class NotFinite(FastvaeError):
    """Weights that must not be saved, since they contain NaN or infinity."""


@dataclass(frozen=True)
class State:
    """The contents of state.json.

    Attributes:
        format: version of the checkpoint format.
        step: steps done.
        seconds: of training.
        data: identity of the training images (`TrainingSet.identity`); None in checkpoints of versions that did not
            record it.
        loss_network: `LossNetwork.digest` of the loss network's weights; None if there is no loss network.
        kl_warmup_steps: of `KlWarmup`; they stay the same if a resumed run is made longer. None if not recorded.
        epoch: that the next step is in, from 0; None in checkpoints of versions that did not record it, which used one
            batch a step.
        images: of that epoch's order that were used.
        ranks: number of processes that shared a step.
    """

    format: int
    step: int
    seconds: float
    data: Identity | None = None
    loss_network: str | None = None
    kl_warmup_steps: int | None = None
    epoch: int | None = None
    images: int | None = None
    ranks: int = 1


def tensors(
    objective: Objective, updates: dict[str, Update], noises: Sequence[Tensor], average: WeightAverage | None = None
) -> dict[tuple[str, str], Tensor]:
    """The state of networks, average, optimisers and steered numbers, and each rank's noise, by (file, name)."""
    network, optimizer = _network_tensors(objective), _optimizer_tensors(updates, noises) | objective.steered()
    if average is not None:
        network |= average.tensors()
    return {(MODEL, k): v for k, v in network.items()} | {(OPTIMIZER, k): v for k, v in optimizer.items()}


def save(
    folder: Path,
    state: State,
    tensors: Mapping[tuple[str, str], Tensor],
    *,
    config: dict[str, Any],
    keep: int,
) -> Path:
    """Writes folder/step-NNNNNNNN and removes all but the newest `keep` checkpoints.

    Args:
        folder: of all checkpoints of the run.
        state: the contents of state.json.
        tensors: those of `tensors`, on the CPU and contiguous.
        config: `to_json` of the run's config.
        keep: > 0.

    Raises:
        NotFinite: a weight is NaN or infinite; nothing was written.
        NotSaved: the disk is full or the folder is not writable; earlier checkpoints are unchanged.
    """
    network, optimizer = ({name: t for (file, name), t in tensors.items() if file == f} for f in (MODEL, OPTIMIZER))
    step = state.step
    if bad := not_finite(network):
        raise NotFinite(f"the weights {bad} were not finite after step {step}")
    target = folder / name_of(step)
    temporary = folder / f".{target.name}.part"
    metadata = {"fastvae": json.dumps({"format": FORMAT, "step": step, "config": config})}
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        # Written by Python, since safetensors only accepts file names in UTF-8.
        (temporary / MODEL).write_bytes(to_bytes(network, metadata))
        (temporary / OPTIMIZER).write_bytes(to_bytes(optimizer))
        (temporary / STATE).write_text(json.dumps(asdict(state), indent=1))
        # Without the flush a power failure after the rename could leave an empty checkpoint.
        for path in (*temporary.iterdir(), temporary):
            flush(path)
        remove(target)
        temporary.rename(target)
        flush(folder)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        earlier = checkpoints(folder)
        last = f"the last good checkpoint is {earlier[-1]}" if earlier else "there is no earlier checkpoint"
        raise NotSaved(
            f"could not save the checkpoint of step {step} in {folder} ({error}); {last}. "
            f"Free some space, then continue with: {resume_command(folder.parent)}"
        ) from error
    prune(folder, keep)
    return target


def restore(
    checkpoint: Path,
    *,
    config: dict[str, Any],
    objective: Objective,
    updates: dict[str, Update],
    noise: torch.Generator,
    average: WeightAverage | None = None,
) -> tuple[State, list[Tensor]]:
    """Loads a checkpoint into networks, optimisers, average and the noise generator of rank 0, in place.

    If it holds no average, the average begins with its weights.

    Returns:
        The contents of state.json, and the saved state of each rank's noise generator.

    Raises:
        FastvaeError: a file is missing, damaged, or of another architecture; then nothing was changed.
    """
    state = read_state(checkpoint, State)
    metadata = read_metadata(checkpoint / MODEL)
    step_in_name = step_of(checkpoint)  # None for a renamed copy
    if not state.step == metadata["step"] or step_in_name not in (None, state.step) or not state.seconds >= 0:
        raise damaged(checkpoint / STATE, ValueError(f"it says step {state.step} after {state.seconds} s"))
    defaults = default_options(config["objective"]["name"])
    if (state.kl_warmup_steps or 0) < 0:
        raise damaged(checkpoint / STATE, ValueError(f"it says that the KL rises for {state.kl_warmup_steps} steps"))
    if not (state.epoch is None) == (state.images is None) or (state.epoch or 0) < 0 or (state.images or 0) < 0:
        raise damaged(checkpoint / STATE, ValueError(f"it says {state.images} images of epoch {state.epoch}"))
    if _comparable(metadata["config"].get("objective"), defaults) != _comparable(config["objective"], defaults):
        raise FastvaeError(
            f"{checkpoint} was trained with other objective options than config.json says: was config.json edited?"
        )
    tensors = _read_networks(checkpoint / MODEL, objective, average)
    optimizers = _read_optimizers(checkpoint / OPTIMIZER, updates, objective.steered())
    noises = noises_in({(OPTIMIZER, name): tensor for name, tensor in optimizers.items()})
    saved_noise = noises[0] if noises[0].shape == noise.get_state().shape else None
    if saved_noise is not None:
        try:
            noise.set_state(saved_noise)
        except RuntimeError as error:
            raise damaged(checkpoint / OPTIMIZER, error) from error
    _load(objective, updates, tensors, optimizers)
    _restore_average(checkpoint, tensors, average)
    if saved_noise is None:
        noise.manual_seed(noise.initial_seed() + state.step)
        _logger.warning(
            "%s was saved on another kind of device: RNG state cannot be restored on this one; reseeding", checkpoint
        )
    return state, noises


def _read_networks(path: Path, objective: Objective, average: WeightAverage | None) -> dict[str, Tensor]:
    """The networks' tensors, and those of the average if the file has one and the run goes on with it."""
    expected, prefixes = _network_tensors(objective), ("",)
    if any(name.startswith(AVERAGES) for name in tensor_shapes(path)):
        if average is not None:
            expected |= average.tensors()
        else:
            prefixes = tuple(f"{name}." for name in objective.networks)
    tensors = read_like(path, expected, prefixes=prefixes)
    if bad := not_finite(tensors):
        raise damaged(path, ValueError(f"{bad} holds NaN or infinity"))
    if negative := next((name for name, t in tensors.items() if t.dim() == 0 and t < 0), None):
        raise damaged(path, ValueError(f"{negative} counts {tensors[negative].item():g}"))
    return tensors


def _restore_average(checkpoint: Path, tensors: dict[str, Tensor], average: WeightAverage | None) -> None:
    if average is None:
        return
    if any(name.startswith(AVERAGES) for name in tensors):
        average.load(tensors)
    else:
        average.restart()
        _logger.warning("%s holds no average of the weights: that of --ema begins with its weights", checkpoint)


def load(
    objective: Objective,
    updates: dict[str, Update],
    state: Mapping[tuple[str, str], Tensor],
    average: WeightAverage | None = None,
) -> None:
    """Loads what `tensors` gave into the networks, the optimisers and the average, in place."""
    network, optimizers = ({name: t for (file, name), t in state.items() if file == f} for f in (MODEL, OPTIMIZER))
    _load(objective, updates, network, optimizers)
    if average is not None:
        average.load(network)


def noises_in(state: Mapping[tuple[str, str], Tensor]) -> list[Tensor]:
    """The state of each rank's noise generator in what `tensors` gave."""
    found = []
    while (key := (OPTIMIZER, _noise_of(len(found)))) in state:
        found.append(state[key])
    return found


def _noise_of(rank: int) -> str:
    return f"noise.{rank}" if rank else "noise"


def _load(objective: Objective, updates: dict[str, Update], network: dict, optimizers: dict) -> None:
    for name, module in objective.networks.items():
        module.load_state_dict(_below(network, name))
    for name, update in updates.items():
        states: dict[int, dict[str, Tensor]] = {}
        for key, value in _below(optimizers, name).items():
            index, _, field = key.partition(".")
            states.setdefault(int(index), {})[field] = value
        groups = update.optimizer.state_dict()["param_groups"]
        update.optimizer.load_state_dict({"state": states, "param_groups": groups})
    for name, number in objective.steered().items():
        if name in optimizers:
            number.copy_(optimizers[name])  # in place: a captured step reads it


def _read_optimizers(path: Path, updates: dict[str, Update], steered: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state of the ranks' noise generators and of the updates' optimisers, and the steered numbers."""
    shapes = tensor_shapes(path)
    expected = {}
    while (name := _noise_of(len(expected))) in shapes:
        if len(shapes[name]) != 1 or shapes[name][0] > _MAX_GENERATOR_BYTES:
            break
        expected[name] = torch.empty(shapes[name], dtype=torch.uint8)
    if not expected:
        raise damaged(path, ValueError("it has no state of a random number generator"))
    for name, update in updates.items():
        parameters = [p for group in update.optimizer.param_groups for p in group["params"]]
        for index, parameter in enumerate(parameters):
            fields = {f"{name}.{index}.{k}": v for k, v in update.optimizer.initial_state(parameter).items()}
            # A parameter that was not updated yet has no state.
            if shapes.keys() & fields.keys():
                expected |= fields
    # An earlier version's held critic had no limit.
    steered = {name: number for name, number in steered.items() if name in shapes or not name.endswith("gan_limit")}
    tensors = read_like(path, expected | steered)
    if bad := next((name for name in steered if not 0 < tensors[name] < math.inf), None):
        raise damaged(path, ValueError(f"{bad} is {tensors[bad].item():g}"))
    return tensors


def _network_tensors(objective: Objective) -> dict[str, Tensor]:
    return {
        f"{name}.{key}": value
        for name, network in objective.networks.items()
        for key, value in network.state_dict().items()
    }


def _optimizer_tensors(updates: dict[str, Update], noises: Sequence[Tensor]) -> dict[str, Tensor]:
    tensors = {_noise_of(rank): noise for rank, noise in enumerate(noises)}
    for name, update in updates.items():
        for index, state in update.optimizer.state_dict()["state"].items():
            tensors |= {f"{name}.{index}.{key}": value for key, value in state.items()}
    return tensors


def _below(tensors: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    return {k.removeprefix(f"{name}."): v for k, v in tensors.items() if k.startswith(f"{name}.")}


def _comparable(objective: Any, defaults: dict[str, Any]) -> Any:
    """The options, those that an earlier version did not have included; without the loss network's path.

    Its weights may have moved.
    """
    if not isinstance(objective, dict):
        return objective
    return {k: v for k, v in {**defaults, **objective}.items() if k != "vgg"}
