"""Finds and reads the weights that a path means: a run, a checkpoint, a saved folder, a model file, or a repository."""

import contextlib
import logging
import os
import re
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from torch import nn

from fastvae.config import ModelConfig
from fastvae.errors import FastvaeError, UsageError, suggest
from fastvae.files import locks
from fastvae.files.places import exists, is_folder, resolved, shown
from fastvae.files.reading import Malformed, conform
from fastvae.train import checkpoint_files

# Of a run with `--ema`, which weights to take: the average, those of the last step, or (auto) the average if any.
Weights = Literal["auto", "ema", "raw"]
# Prefix of the tensors of a GAN's generator.
GENERATOR = "generator."
# Repository names on the Hub; neither part starts with a dot.
_REPOSITORY = re.compile(r"\w[\w.-]*/\w[\w.-]*")
Result = TypeVar("Result")
Network = TypeVar("Network", bound=nn.Module)
_logger = logging.getLogger("fastvae")


def filled(
    kind: type[Network], model: ModelConfig, file: Path, prefix: str, prefixes: tuple[str, ...] = ("",)
) -> Network:
    """A float32 network with the weights of a file.

    Args:
        kind: class of the network, called with image_size, width, latent and stages.
        model: gives their values.
        file: a model.safetensors.
        prefix: of the network in the names in the file.
        prefixes: of all names in the file that must belong to the network.

    Raises:
        FastvaeError: the tensors in the file are not those of this network; then nothing was allocated.
    """
    with torch.device("meta"):
        network = kind(model.image_size, model.width, model.latent, model.stages).float()  # whatever torch's default is
    expected = {f"{prefix}{name}": like for name, like in network.state_dict().items()}
    tensors = checkpoint_files.read_like(file, expected, prefixes=prefixes)
    network.load_state_dict({name.removeprefix(prefix): value for name, value in tensors.items()}, assign=True)
    return network


def chosen_weights(
    file: Path, metadata: dict[str, Any], names: Collection[str], network: str, weights: Weights
) -> tuple[str, Literal["ema", "raw"] | None]:
    """Where in a model.safetensors a network's requested weights are, and what they are.

    Args:
        file: its path.
        metadata: of the file (`checkpoint_files.read_metadata`).
        names: of its tensors.
        network: prefix of the network's tensors, as in "decoder.".
        weights: as requested.

    Returns:
        The prefix that precedes the network's, "ema." or "". And "ema" for an average, "raw" for the last step's of a
        run that has an average, None for those of a run without.

    Raises:
        FastvaeError: the file does not hold the requested ones.
        UsageError: `weights` is none of its values.
    """
    if weights not in ("auto", "ema", "raw"):
        raise UsageError(f"weights must be auto, ema or raw; got {weights!r}")
    if any(name.startswith(f"{checkpoint_files.AVERAGES}{network}") for name in names):
        if weights == "auto":
            _logger.info("%s: taking the moving average of the weights; --weights raw: those of the last step", file)
        return ("", "raw") if weights == "raw" else (checkpoint_files.AVERAGES, "ema")
    saved = metadata["run"].get("weights") if isinstance(metadata.get("run"), dict) else None
    saved = saved if saved in ("ema", "raw") else None
    if weights == "ema" and saved != "ema":
        raise FastvaeError(f"{file} holds no moving average of the weights, only those of the last step")
    if weights == "raw" and saved == "ema":
        raise FastvaeError(f"{file} holds only a moving average of the weights, not those of the last step")
    return "", saved


def views_of(metadata: dict[str, Any]) -> tuple[str, ...]:
    """The views in a model.safetensors; () unless it is of a multi-view run."""
    objective = metadata["config"].get("objective")
    if not isinstance(objective, dict) or objective.get("name") != "multi_view":
        return ()
    try:
        return conform(objective.get("layers"), tuple[str, ...], "objective.layers")
    except Malformed as error:
        raise FastvaeError(f"the config does not list the views ({error}): was it edited?") from error


def read_model(path: str | Path, read: Callable[[Path, str | None], Result]) -> Result:
    """`read(file, view)` with the model.safetensors that a path means (see `fastvae.load`) and the view that it names.

    If it is in a checkpoint, a run in progress does not remove that checkpoint meanwhile.

    Raises:
        FastvaeError: there is no such file; also what `read` raises.
    """
    given, path = os.fspath(path), resolved(path)
    if not exists(path):
        of_a_run = checkpoint_files.checkpoints(path.parent / "checkpoints")
        if of_a_run or exists(path.parent / checkpoint_files.MODEL) or _is_model(path.parent):
            return _read_model(path.parent, path.name, read)
        if _REPOSITORY.fullmatch(given):
            from fastvae.hub.download import fetch

            path = fetch(given)
    return _read_model(path, None, read)


def _read_model(path: Path, view: str | None, read: Callable[[Path, str | None], Result]) -> Result:
    run, checkpoint = checkpoint_files.named_run(path)
    if checkpoint is not None:
        return _read_kept(checkpoint / checkpoint_files.MODEL, view, read)
    if _is_model(path):
        return _read_kept(path, view, read)
    if exists(path / checkpoint_files.MODEL):
        return _read_kept(path / checkpoint_files.MODEL, view, read)
    return checkpoint_files.read_newest(run, lambda newest: read(newest / checkpoint_files.MODEL, view))


def _is_model(path: Path) -> bool:
    return path.suffix == ".safetensors" and not is_folder(path)


def _read_kept(file: Path, view: str | None, read: Callable[[Path, str | None], Result]) -> Result:
    """`read` with the folder of the file locked against removal, which matters if it is a checkpoint."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            stack.enter_context(locks.reading(file.parent))
        return read(file, view)


def name_of(run: str | Path) -> str:
    """A human-readable name of a run: the last part of its path."""
    return resolved(run).name or "run"


def which_view(file: Path, view: str | None, views: tuple[str, ...]) -> str:
    """The error message for a view that does not exist, or is not given."""
    run = file.parent.parent.parent
    # Of a run its newest checkpoint is meant, and any other one by its own name.
    newest = checkpoint_files.checkpoints(run / "checkpoints")[-1:] == [file.parent]
    place = run if newest else file.parent if file.name == checkpoint_files.MODEL else file
    if not views:
        return f"{place} has no view {view!r}: it is of one model; leave it out"
    if view is None:
        return f"{place} holds the views {', '.join(map(shown, views))}: name one, as in {place / shown(views[0])}"
    return f"{place} has no view {view!r}{suggest(view, views)}"
