"""Weights of an earlier run that a new one starts from (`--init`)."""

import hashlib
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from fastvae.config import InitialWeights
from fastvae.errors import FastvaeError
from fastvae.files.tensor_file import not_finite
from fastvae.objectives import Objective
from fastvae.train.checkpoint_files import AVERAGES, read_floats, read_metadata

# Networks whose stages are numbered from the smallest map, and what holds them: of a model of another image size those
# fit that are as far from the image.
_NUMBERED_FROM_THE_SMALLEST = {"decoder": "stages", "generator": "layers"}
# Tensors that a message names before it counts the others.
_NAMED = 4
_LEFT = "; initialised from the seed"
_logger = logging.getLogger("fastvae")


@dataclass(frozen=True)
class Source:
    """The weights of a model.safetensors.

    Attributes:
        record: for the new run's config.
        step: steps that they were trained for.
        averaged: whether moving averages stand in place of weights where the file has them.
        tensors: float32, by name: "encoder.mean.weight".
    """

    record: InitialWeights
    step: int
    averaged: bool
    tensors: dict[str, Tensor]


def read_source(file: Path, view: str | None, given: str) -> Source:
    """Reads the weights of a file; of a multi-view run's view, named as those of a run of its own.

    Raises:
        FastvaeError: the file is missing, damaged, or was not written by fastvae.
    """
    metadata = read_metadata(file)
    tensors = read_floats(file)
    averages = {name.removeprefix(AVERAGES): t for name, t in tensors.items() if name.startswith(AVERAGES)}
    tensors = {name: t for name, t in tensors.items() if not name.startswith(AVERAGES)} | averages
    if view is not None:
        tensors = _below(tensors, view)
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    return Source(InitialWeights(given, digest), metadata["step"], bool(averages), tensors)


@torch.no_grad()
def initialise(objective: Objective, source: Source) -> None:
    """Copies every tensor of the source that fits into the objective's networks, and logs what that was.

    A tensor fits if network, name and shape are the same; the stages of a decoder and of a generator are counted from
    the image, as those of an encoder are. Each view of a multi-view run also takes the networks of a
    source that has one model.

    Raises:
        FastvaeError: nothing fits, or what fits holds NaN or infinity; then nothing was changed.
    """
    taken: dict[str, Tensor] = {}
    summaries, used = [], set()
    for name, network in objective.networks.items():
        own = {key: t for key, t in network.state_dict(keep_vars=True).items() if t.is_floating_point()}
        there = next((n for n in (name, name.rpartition(".")[2]) if _below(source.tensors, n)), name)
        given = _renumbered(name.rpartition(".")[2], _below(source.tensors, there), own)
        fitting = {key: t for key, t in given.items() if key in own and own[key].shape == t.shape}
        taken |= {f"{name}.{key}": t for key, t in fitting.items()}
        used |= {there} if fitting else set()
        summaries.append(f"{name}: {_summary(own, given)}")
    summaries.append(_others(source, used))
    path = source.record.source
    if not taken:
        why = "; ".join(filter(None, summaries)).replace(_LEFT, "")  # nothing is initialised
        raise FastvaeError(f"nothing of {path} fits this run: {why}")
    if bad := not_finite(taken):
        raise FastvaeError(f"{path} holds NaN or infinity in {bad}: a run cannot start from it")
    for name, network in objective.networks.items():
        for key, t in network.state_dict(keep_vars=True).items():
            if (value := taken.get(f"{name}.{key}")) is not None:
                t.copy_(value)
    kind = ", the moving average of its weights" if source.averaged else ""
    _logger.info("starting from %s after %d steps%s", path, source.step, kind)
    for summary in filter(None, summaries):
        _logger.info("  %s", summary)


def _renumbered(network: str, given: dict[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The given tensors, with the numbers that their stages have in a network of as many stages as `own`."""
    if (holder := _NUMBERED_FROM_THE_SMALLEST.get(network)) is None:
        return given
    number = re.compile(rf"{holder}\.(\d+)\.")
    last_here, last_there = (max((int(m[1]) for m in map(number.match, keys) if m), default=0) for keys in (own, given))
    shift = last_here - last_there
    return {number.sub(lambda m: f"{holder}.{int(m[1]) + shift}.", key): tensor for key, tensor in given.items()}


def _summary(own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> str:
    """How many tensors of a network are taken, and which are not and why."""
    if not given:
        return f"none of {len(own)} tensors, as there is no such network{_LEFT}"
    left = []
    for key, t in own.items():
        if key not in given:
            left.append(f"{key} (missing)")
        elif given[key].shape != t.shape:
            left.append(f"{key} ({list(t.shape)} here, {list(given[key].shape)} there)")
    if not left:
        return f"all {len(own)} tensors"
    more = f" and {len(left) - _NAMED} more" if len(left) > _NAMED else ""
    return f"{len(own) - len(left)} of {len(own)} tensors{_LEFT}: {', '.join(left[:_NAMED])}{more}"


def _others(source: Source, used: set[str]) -> str:
    """Names the networks, or views, of the source of which nothing is taken; "" if there are none."""
    networks = dict.fromkeys(name.partition(".")[0] for name in source.tensors if "." in name)
    others = [name for name in networks if not any(f"{key}.".startswith(f"{name}.") for key in used)]
    return f"not taken: {', '.join(others)}" if others else ""


def _below(tensors: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    return {k.removeprefix(f"{name}."): t for k, t in tensors.items() if k.startswith(f"{name}.")}
