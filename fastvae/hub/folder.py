"""A folder with all that somebody else needs: weights, config, model card, picture."""

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from fastvae.errors import FastvaeError
from fastvae.hub.model_card import model_card

if TYPE_CHECKING:
    from fastvae.models import VAE

PICTURE = "reconstructions.png"


def write(vae: "VAE", folder: Path, *, license: str | None = None) -> None:
    """Writes what `fastvae.load` and the Hub read.

    model.safetensors     the weights, and in its metadata the config and what is known of the training run
    config.json           the arguments of `VAE`
    README.md             the model card; one that is there already stays, as somebody may have edited it
    reconstructions.png   held-out images and their reconstructions, if the run left any

    Raises:
        FastvaeError: it cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    from fastvae.train.checkpoint_files import FORMAT

    model = {"image_size": vae.image_size, "width": vae.width, "latent": vae.latent}
    metadata = {"format": FORMAT, "step": 0, "config": {"model": model}}
    if vae.run is not None:
        metadata |= {"step": vae.run.step, "config": vae.run.config, "run": vae.run.as_json()}
    tensors = {name: value.detach().cpu().contiguous() for name, value in vae.state_dict().items()}
    picture = vae.run.picture if vae.run else None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / ".model.safetensors.part"
        save_file(tensors, temporary, {"fastvae": json.dumps(metadata), "format": "pt"})
        temporary.replace(folder / "model.safetensors")
        (folder / "config.json").write_text(json.dumps({"model_type": "fastvae", **model}, indent=2) + "\n")
        if picture is not None and picture.resolve() != (folder / PICTURE).resolve():
            shutil.copyfile(picture, folder / PICTURE)
        if not (folder / "README.md").exists():
            card = model_card(vae, picture=PICTURE if picture else None, license=license)
            (folder / "README.md").write_text(card)
    except (OSError, SafetensorError) as error:
        raise FastvaeError(
            f"the model could not be saved in {folder} ({error}): free some space, or choose another folder"
        ) from error
