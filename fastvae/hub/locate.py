"""A trained VAE from a run folder, a checkpoint, a saved folder, its model file, or the Hugging Face Hub."""

import contextlib
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from fastvae.config import ModelConfig
from fastvae.errors import FastvaeError, suggest
from fastvae.files import locks
from fastvae.files.places import resolved
from fastvae.files.reading import Malformed, conform
from fastvae.train import checkpoint_files

# What a GAN's tensors begin with.
GENERATOR = "generator."
# As the Hub names them: neither part begins with a dot.
_REPOSITORY = re.compile(r"\w[\w.-]*/\w[\w.-]*")
Result = TypeVar("Result")
Network = TypeVar("Network", bound=nn.Module)


def filled(
    kind: type[Network], model: ModelConfig, file: Path, prefix: str, prefixes: tuple[str, ...] = ("",)
) -> Network:
    """A network with the weights of a file, float32.

    Args:
        kind: of the network, made from image_size, width and latent.
        model: gives these.
        file: model.safetensors.
        prefix: of the weights' names in the file.
        prefixes: of the names that belong to the network.

    Raises:
        FastvaeError: the file's tensors are not those of this network; nothing was allocated for it then.
    """
    with torch.device("meta"):
        network = kind(model.image_size, model.width, model.latent)
    expected = {f"{prefix}{name}": like for name, like in network.state_dict().items()}
    tensors = checkpoint_files.read_like(file, expected, prefixes=prefixes)
    network.load_state_dict({name.removeprefix(prefix): value for name, value in tensors.items()}, assign=True)
    return network


def views_of(metadata: dict[str, Any]) -> tuple[str, ...]:
    """The views that a file of weights holds, () for the usual one of one system."""
    objective = metadata["config"].get("objective")
    if not isinstance(objective, dict) or objective.get("name") != "multi_view":
        return ()
    try:
        return conform(objective.get("layers"), tuple[str, ...], "objective.layers")
    except Malformed as error:
        raise FastvaeError(f"the config does not say which views there are ({error}): was it edited?") from error


def read_model(path: str | Path, read: Callable[[Path, str | None], Result]) -> Result:
    """`read(file, view)` of the file of weights that `load` takes for a path, and the view that the path names in it.

    A run that is going on may remove checkpoints meanwhile: the one that is read stays.

    Raises:
        FastvaeError: there is no such file, and what `read` raises.
    """
    given, path = os.fspath(path), resolved(path)
    if not _exists(path):
        if checkpoint_files.checkpoints(path.parent / "checkpoints"):
            return _read_model(path.parent, path.name, read)
        if _REPOSITORY.fullmatch(given):
            from fastvae.hub.download import fetch

            path = fetch(given)
    return _read_model(path, None, read)


def _exists(path: Path) -> bool:
    """Whether there is something of this name.

    Raises:
        FastvaeError: that cannot be told.
    """
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise FastvaeError(f"{path} cannot be read ({error.strerror or error})") from error
    return True


def _read_model(path: Path, view: str | None, read: Callable[[Path, str | None], Result]) -> Result:
    if path.suffix == ".safetensors" and not path.is_dir():
        return _read_kept(path, view, read)
    if (path / checkpoint_files.MODEL).exists():
        return _read_kept(path / checkpoint_files.MODEL, view, read)
    run, _ = checkpoint_files.named_run(path)
    return checkpoint_files.read_newest(run, lambda newest: read(newest / checkpoint_files.MODEL, view))


def _read_kept(file: Path, view: str | None, read: Callable[[Path, str | None], Result]) -> Result:
    """`read`, while the file's folder, if it is a checkpoint's, is not removed."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            stack.enter_context(locks.reading(file.parent))
        return read(file, view)


def name_of(run: str | Path) -> str:
    """What a run is called among people: the last part of its path."""
    return resolved(run).name or "run"


def which_view(file: Path, view: str | None, views: tuple[str, ...]) -> str:
    """Why a view cannot be had, or why one must be named."""
    if not views:
        return f"{file.parent.parent.parent} holds no {view!r}: it is a run of one model, which is loaded by its folder"
    run = file.parent.parent.parent
    if view is None:
        return f"{run} holds the views {', '.join(views)}: name one, as in {run / views[0]}"
    return f"{run} has no view {view!r}{suggest(view, views)}"
