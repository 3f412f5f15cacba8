"""Which attributes get a slider, and their directions in latent space."""

import os
from pathlib import Path
from typing import Any

from fastvae.data.dataset import EMBEDDED, open_images
from fastvae.data.packed import PackedImages
from fastvae.errors import FastvaeError, UsageError
from fastvae.files.places import resolved
from fastvae.files.reading import read_json
from fastvae.inference.accelerated import AcceleratedVAE
from fastvae.inference.attribute_vectors import AttributeVector, attribute_vectors, choose_attributes
from fastvae.train.run_summary import RunSummary


class NoSliders(FastvaeError):
    """The data set that was not asked for cannot give any: a page without them is still of use."""


def make_sliders(
    vae: AcceleratedVAE, data: str | None, names: tuple[str, ...], *, trained_on: str | None
) -> list[AttributeVector]:
    """The attribute vectors that the page offers, from up to 2,000 training images on either side.

    Args:
        vae: what encodes.
        data: as `open_images` takes it; None for what the run was trained on.
        names: as `choose_attributes` takes them.
        trained_on: data of the run, None if it is not known.

    Raises:
        NoSliders: neither data nor names were given, and the run's data set is not there or has no attributes.
        FastvaeError: what was given cannot be had.
    """
    try:
        images = _open(data if data is not None else _still_there(trained_on), vae.image_size)
        chosen = choose_attributes(images, names)
    except FastvaeError as error:
        if data is not None:
            raise
        if names:
            raise UsageError(f"--attributes needs a data set that has them, --data: {error}") from error
        raise NoSliders(str(error)) from error
    return attribute_vectors(vae, images, chosen, progress="attributes")


def trained_on(run: str | Path, summary: RunSummary | None) -> str | None:
    """The `data` of a run, with its path if the run's folder is there.

    Args:
        run: what `fastvae.load` was given: the folder of the run, of a checkpoint in it, or a file in that.
        summary: of the model, whose config has names in place of paths.
    """
    run = resolved(run)
    for folder in (run, *Path(os.path.realpath(run)).parents[:3]):
        # A folder of a run: another one's config.json may say `data` of anything.
        if (folder / "checkpoints").is_dir() and isinstance(found := _read(folder / "config.json").get("data"), str):
            return found
    return summary.config["data"] if summary else None


def _open(data: str, image_size: int) -> PackedImages:
    images = open_images(data, image_size)
    if images.attributes is None:
        raise FastvaeError(f"{data} has no attributes")
    return images


def _still_there(data: str | None) -> str:
    if data is None:
        raise FastvaeError("it is not known what the model was trained on")
    if data != EMBEDDED and not os.path.exists(resolved(data)):  # noqa: PTH110  (pathlib may raise)
        raise FastvaeError(f"the data that the model was trained on, {data}, is not there")
    return data


def _read(path: Path) -> dict[str, Any]:
    try:
        found = read_json(path)
    except FastvaeError:
        return {}
    return found if isinstance(found, dict) else {}
