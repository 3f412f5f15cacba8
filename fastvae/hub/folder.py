"""Saved models: a folder with weights, config, model card and an image of reconstructions."""

import json
import logging
import os
from pathlib import Path

from fastvae.errors import FastvaeError
from fastvae.files.atomic_write import write_atomically
from fastvae.files.places import resolved
from fastvae.files.reading import open_regular, read_json
from fastvae.files.tensor_file import SafetensorError, not_finite, to_bytes
from fastvae.models import VAE
from fastvae.train.checkpoint_files import FORMAT, MODEL, OPTIMIZER, STATE, read_metadata
from fastvae.train.run_summary import RunSummary

PICTURE = "reconstructions.png"
_CONFIG, _CARD = "config.json", "README.md"
_TYPE = "fastvae"
_ADVICE = "free some space, or choose another folder"
_MAX_PICTURE_BYTES = 1 << 28
_logger = logging.getLogger("fastvae")


def write(vae: VAE, folder: str | Path, *, run: RunSummary | None = None, license: str | None = None) -> None:
    """Writes a folder that `fastvae.load` and the Hub read.

    model.safetensors     the weights, with the config and a summary of the training run as metadata
    config.json           the arguments of `VAE`
    README.md             the model card; an existing one is kept, since it may have been edited
    reconstructions.png   held-out images and their reconstructions, if the run has any; that of a model that is
                          replaced is removed

    Raises:
        UsageError: the path is invalid.
        FastvaeError: the folder holds another model or a run's files, or cannot be written.
    """
    folder = resolved(folder)
    replaced = _check_folder(folder)
    model = {"image_size": vae.image_size, "width": vae.width, "latent": vae.latent, "stages": vae.stages}
    metadata = {"format": FORMAT, "step": 0, "config": {"model": model}}
    if run is not None:
        config = {**run.config, "model": {**run.config.get("model", {}), **model}}
        metadata |= {"step": run.step, "config": config, "run": run.as_json()}
    tensors = {name: value.detach().cpu().resolve_neg().contiguous() for name, value in vae.state_dict().items()}
    if bad := not_finite(tensors):
        _logger.warning("saving weights with NaN or infinity in %s: did the training diverge?", bad)
    picture = _read_picture(run)
    try:
        # As bytes, since safetensors only accepts file names in UTF-8.
        data = to_bytes(tensors, {"fastvae": json.dumps(metadata), "format": "pt"})
    except SafetensorError as error:
        raise FastvaeError(f"the model could not be saved in {folder} ({error})") from error
    write_atomically(folder / MODEL, data, advice=_ADVICE)
    write_atomically(folder / _CONFIG, json.dumps({"model_type": _TYPE, **model}, indent=2) + "\n", advice=_ADVICE)
    if picture is None and replaced:
        (folder / PICTURE).unlink(missing_ok=True)
    if picture is not None and not _same(run.picture, folder / PICTURE):
        write_atomically(folder / PICTURE, picture, advice=_ADVICE)
    if not os.path.lexists(folder / _CARD):
        from fastvae.hub.model_card import model_card  # it needs all objectives: loading should not wait for them

        card = model_card(vae, run, picture=None if picture is None else PICTURE, license=license)
        write_atomically(folder / _CARD, card.encode("utf-8", "replace"), advice=_ADVICE)


def _check_folder(folder: Path) -> bool:
    """Whether it holds a saved VAE already; raises FastvaeError if files would be overwritten that are not one's."""
    if any(os.path.lexists(folder / name) for name in (STATE, OPTIMIZER)):
        raise FastvaeError(f"{folder} is a checkpoint of a run and would be overwritten: choose another folder")
    config, weights = folder / _CONFIG, folder / MODEL
    try:
        if os.path.lexists(config):
            values = read_json(config)
            ours = isinstance(values, dict) and values.get("model_type") == _TYPE
        elif os.path.lexists(weights):
            ours = bool(read_metadata(weights))
        else:
            return False
    except FastvaeError as error:
        raise FastvaeError(f"{error}; {folder} may hold another model: choose another folder") from error
    if not ours:
        raise FastvaeError(f"{config} does not belong to a saved VAE and would be overwritten: choose another folder")
    return True


def _read_picture(run: RunSummary | None) -> bytes | None:
    """The run's image of reconstructions, None if there is none (any more)."""
    if run is None or run.picture is None:
        return None
    try:
        with open_regular(run.picture) as file:
            data = file.read(_MAX_PICTURE_BYTES + 1)
    except OSError:
        return None
    return data if len(data) <= _MAX_PICTURE_BYTES else None


def _same(first: Path, second: Path) -> bool:
    try:
        return first.samefile(second)
    except OSError:
        return False
