"""The attributes with a slider, and their directions in latent space."""

import os
from pathlib import Path
from typing import Any

from fastvae.data.dataset import EMBEDDED, open_images
from fastvae.data.packed import PackedImages
from fastvae.data.sources.hub import is_on_hub
from fastvae.errors import FastvaeError, UsageError
from fastvae.files.places import resolved
from fastvae.files.reading import read_json
from fastvae.inference.accelerated import AcceleratedVAE
from fastvae.inference.attribute_vectors import AttributeVector, attribute_vectors, choose_attributes
from fastvae.train.run_summary import RunSummary


class NoSliders(FastvaeError):
    """The default data set provides no sliders; the page still works without them."""


def make_sliders(
    vae: AcceleratedVAE, data: str | None, names: tuple[str, ...], *, trained_on: str | None
) -> list[AttributeVector]:
    """The attribute vectors of the sliders, from up to 2,000 training images with and without each attribute.

    Args:
        vae: encodes the images.
        data: as in `open_images`; None for the run's training data.
        names: as in `choose_attributes`.
        trained_on: the run's training data, None if unknown.

    Raises:
        NoSliders: neither data nor names were given, and the run's data set is missing or has no attributes.
        FastvaeError: the given data or names cannot be used.
    """
    try:
        images = _open(data if data is not None else _existing(trained_on), vae.image_size)
        chosen = choose_attributes(images, names)
    except FastvaeError as error:
        if data is not None:
            raise
        if names:
            raise UsageError(f"--attributes needs a data set that has them, --data: {error}") from error
        raise NoSliders(str(error)) from error
    return attribute_vectors(vae, images, chosen, progress="attributes")


def trained_on(run: str | Path, summary: RunSummary | None) -> str | None:
    """The `data` of a run, as a path if the run's folder exists.

    Args:
        run: as in `fastvae.load`: the folder of the run or of one of its checkpoints, or a file in one.
        summary: of the model; its config contains names instead of paths.
    """
    run = resolved(run)
    for folder in (run, *Path(os.path.realpath(run)).parents[:3]):
        # Only a run's folder: in another one, `data` in config.json may mean anything.
        if (folder / "checkpoints").is_dir() and isinstance(data := _read(folder / "config.json").get("data"), str):
            return data
    return summary.config["data"] if summary else None


def _open(data: str, image_size: int) -> PackedImages:
    images = open_images(data, image_size)
    if images.attributes is None:
        raise FastvaeError(f"{data} has no attributes")
    return images


def _existing(data: str | None) -> str:
    if data is None:
        raise FastvaeError("the model's training data are unknown")
    if data != EMBEDDED and not is_on_hub(data) and not os.path.exists(resolved(data)):  # noqa: PTH110  (pathlib may raise)
        raise FastvaeError(f"the model's training data, {data}, do not exist")
    return data


def _read(path: Path) -> dict[str, Any]:
    try:
        values = read_json(path)
    except FastvaeError:
        return {}
    return values if isinstance(values, dict) else {}
