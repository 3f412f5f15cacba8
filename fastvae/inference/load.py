"""A trained VAE from a run folder, a checkpoint, a saved folder, its model file, or the Hugging Face Hub."""

import re
from pathlib import Path
from typing import Any

from fastvae.config import model_from_json, suggest
from fastvae.errors import FastvaeError
from fastvae.inference.run_summary import of_checkpoint
from fastvae.models import VAE
from fastvae.places import resolved
from fastvae.train import checkpoint

# What a GAN's tensors begin with.
GENERATOR = "generator."


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
    file, view = model_file(path)
    return load_file(file, device=device, view=view)


def load_file(file: Path, *, device: str = "cpu", view: str | None = None) -> VAE:
    """The same from a model.safetensors of ours, or one view of several."""
    metadata = checkpoint.read_metadata(file)
    model = model_from_json(metadata["config"])
    views = views_of(metadata)
    if (view is None) != (not views) or (view is not None and view not in views):
        raise FastvaeError(which_view(file, view, views))
    vae = VAE(model.image_size, model.width, model.latent)
    prefix = f"{view}." if view else ""
    tensors = {k.removeprefix(prefix): v for k, v in checkpoint.read_tensors(file).items() if k.startswith(prefix)}
    found = {k: v for k, v in tensors.items() if k.startswith(("encoder.", "decoder."))}
    if any(k.startswith(GENERATOR) for k in tensors):
        raise FastvaeError(
            f"{file} is a GAN's, which has no encoder: `fastvae generate`, `fastvae figures samples` and `fastvae "
            "evaluate` take its run, and what encodes or reconstructs cannot"
        )
    if not found:
        raise FastvaeError(f"{file} holds no VAE: was another kind of network trained in that run?")
    checkpoint.check_same(file, found, vae.state_dict())
    vae.load_state_dict(found)
    vae.run = of_checkpoint(metadata, file, view)
    return vae.to(device).eval()


def views_of(metadata: dict[str, Any]) -> tuple[str, ...]:
    """The views that a file of weights holds, () for the usual one of one system."""
    objective = metadata["config"].get("objective", {})
    return tuple(objective["layers"]) if objective.get("name") == "multi_view" else ()


def model_file(path: str | Path) -> tuple[Path, str | None]:
    """The file of weights that `load` reads for a path, and the view that the path names in it, or None."""
    given, path = str(path), Path(path).expanduser()
    if not path.exists() and checkpoint.checkpoints(path.parent / "checkpoints"):
        return _model_file(path.parent), path.name
    if not path.exists() and re.fullmatch(r"[\w.-]+/[\w.-]+", given):
        from fastvae.hub.download import fetch

        path = fetch(given)
    return _model_file(path), None


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


def _model_file(path: Path) -> Path:
    if path.suffix == ".safetensors":
        return path
    if (path / "model.safetensors").exists():
        return path / "model.safetensors"
    return checkpoint.latest(path) / "model.safetensors"
