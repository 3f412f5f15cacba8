"""A trained VAE from a run folder, a checkpoint, a saved folder, its model file, or the Hugging Face Hub."""

import contextlib
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from fastvae import locks
from fastvae.config import ModelConfig, model_from_json, suggest
from fastvae.errors import FastvaeError
from fastvae.inference.run_summary import of_checkpoint
from fastvae.machine import usable_device
from fastvae.models import VAE
from fastvae.places import resolved
from fastvae.reading import Malformed, conform
from fastvae.train import checkpoint_files

# What a GAN's tensors begin with.
GENERATOR = "generator."
# As the Hub names them: neither part begins with a dot.
_REPOSITORY = re.compile(r"\w[\w.-]*/\w[\w.-]*")
Result = TypeVar("Result")
Network = TypeVar("Network", bound=nn.Module)


def load(path: str | Path, *, device: str = "cpu") -> VAE:
    """A trained VAE, in eval mode, float32.

    Args:
        path: a run folder (its newest checkpoint), one checkpoint's folder, a folder that `VAE.save_pretrained` wrote,
            or a model.safetensors. If there is no such path and it has the form "user/name", that repository on the
            Hugging Face Hub. A view of a multi-view run is RUN/relu1_1, and so on.
        device: where to put it, as torch spells devices.

    Returns:
        A `VAE`, whose methods state shapes and ranges. Nothing is unpickled. Its `run` says what it was trained on.

    Raises:
        FastvaeError: there is no checkpoint, it is damaged, of another version, or it holds no VAE or several; or the
            repository cannot be had.
    """
    return read_model(path, lambda file, view: load_file(file, device=device, view=view))


def load_file(file: Path, *, device: str = "cpu", view: str | None = None) -> VAE:
    """The same from a model.safetensors of ours, or one view of several."""
    metadata = checkpoint_files.read_metadata(file)
    model = model_from_json(metadata["config"])
    views = views_of(metadata)
    if (view is None) != (not views) or (view is not None and view not in views):
        raise FastvaeError(which_view(file, view, views))
    names = checkpoint_files.tensor_shapes(file)
    if any(name.startswith(GENERATOR) for name in names):
        raise FastvaeError(
            f"{file} is a GAN's, which has no encoder: `fastvae generate`, `fastvae figures samples` and `fastvae "
            "evaluate` take its run, and what encodes or reconstructs cannot"
        )
    prefix = f"{view}." if view else ""
    parts = f"{prefix}encoder.", f"{prefix}decoder."
    if not any(name.startswith(parts) for name in names):
        raise FastvaeError(f"{file} holds no VAE: was another kind of network trained in that run?")
    vae = filled(VAE, model, file, prefix, parts)
    vae.run = of_checkpoint(metadata, file, view)
    return vae.to(usable_device(device)).eval()


def filled(kind: type[Network], model: ModelConfig, file: Path, prefix: str, parts: tuple[str, ...] = ("",)) -> Network:
    """A network with the weights of a file, float32.

    Args:
        kind: of the network, made from image_size, width and latent.
        model: gives these.
        file: model.safetensors.
        prefix: of the weights' names in the file.
        parts: prefixes of the names that belong to the network.

    Raises:
        FastvaeError: the file's tensors are not those of this network; nothing was allocated for it then.
    """
    with torch.device("meta"):
        network = kind(model.image_size, model.width, model.latent)
    expected = {f"{prefix}{name}": like for name, like in network.state_dict().items()}
    tensors = checkpoint_files.read_like(file, expected, prefixes=parts)
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
