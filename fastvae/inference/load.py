"""A trained VAE from a run folder, a checkpoint, a saved folder, its model file, or the Hugging Face Hub."""

import re
from pathlib import Path

from fastvae.config import model_from_json
from fastvae.errors import FastvaeError
from fastvae.inference.run_summary import of_checkpoint
from fastvae.models import VAE
from fastvae.train import checkpoint


def load(path: str | Path, *, device: str = "cpu") -> VAE:
    """A trained VAE, in eval mode, float32.

    Args:
        path: a run folder (its newest checkpoint), one checkpoint's folder, a folder that `VAE.save_pretrained` wrote,
            or a model.safetensors. If there is no such path and it has the form "user/name", that repository on the
            Hugging Face Hub.
        device: where to put it, as torch spells devices.

    Returns:
        A `VAE`, whose methods state shapes and ranges. Nothing is unpickled. Its `run` says what it was trained on.

    Raises:
        FastvaeError: there is no checkpoint, it is damaged, of another version, or it holds no VAE; or the repository
            cannot be had.
    """
    given, path = str(path), Path(path).expanduser()
    if not path.exists() and re.fullmatch(r"[\w.-]+/[\w.-]+", given):
        from fastvae.hub.download import fetch

        path = fetch(given)
    return load_file(_model_file(path), device=device)


def load_file(file: Path, *, device: str = "cpu") -> VAE:
    """The same from a model.safetensors of ours."""
    metadata = checkpoint.read_metadata(file)
    model = model_from_json(metadata["config"])
    vae = VAE(model.image_size, model.width, model.latent)
    found = {k: v for k, v in checkpoint.read_tensors(file).items() if k.startswith(("encoder.", "decoder."))}
    if not found:
        raise FastvaeError(f"{file} holds no VAE: was another kind of network trained in that run?")
    checkpoint.check_same(file, found, vae.state_dict())
    vae.load_state_dict(found)
    vae.run = of_checkpoint(metadata, file)
    return vae.to(device).eval()


def _model_file(path: Path) -> Path:
    if path.suffix == ".safetensors":
        return path
    if (path / "model.safetensors").exists():
        return path / "model.safetensors"
    return checkpoint.latest(path) / "model.safetensors"
