"""A trained VAE from a run folder, a checkpoint or its model file."""

from pathlib import Path

from fastvae.config import from_json
from fastvae.models import VAE
from fastvae.train import checkpoint


def load(path: str | Path, *, device: str = "cpu") -> VAE:
    """The trained VAE of a run, in eval mode, float32.

    Args:
        path: a run folder (its newest checkpoint), one checkpoint's folder, or a model.safetensors.
        device: where to put it, as torch spells devices.

    Returns:
        A `VAE`, whose methods state shapes and ranges. Nothing is unpickled.

    Raises:
        FastvaeError: there is no checkpoint, it is damaged, or it holds no VAE.
    """
    path = Path(path).expanduser()
    if path.suffix != ".safetensors" and not (path / "model.safetensors").exists():
        path = checkpoint.latest(path)
    file = path / "model.safetensors" if path.is_dir() else path
    model = from_json(checkpoint.read_metadata(file)["config"]).model
    tensors = checkpoint.read_tensors(file)
    vae = VAE(model.image_size, model.width, model.latent)
    expected = vae.state_dict()
    found = {k: v for k, v in tensors.items() if k.startswith(("encoder.", "decoder."))}
    checkpoint.check_same(file, found, expected)
    vae.load_state_dict(found)
    return vae.to(device).eval()
