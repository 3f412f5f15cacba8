"""The attributes with a slider, and their directions in latent space."""

import os
from pathlib import Path
from typing import Any

from fastvae.data.dataset import EMBEDDED, open_images
from fastvae.data.packed import PackedImages
from fastvae.errors import FastvaeError, UsageError
from fastvae.files.places import resolved
from fastvae.files.reading import read_json
from fastvae.inference.accelerated import AcceleratedVAE
from fastvae.inference.attribute_vectors import PAPER, AttributeVector, attribute_vectors
from fastvae.train.run_summary import RunSummary

_DEFAULT_COUNT = 8


class NoSliders(FastvaeError):
    """The default data set provides no sliders; the page still works without them."""


def make_sliders(
    vae: AcceleratedVAE, data: str | None, names: tuple[str, ...], *, trained_on: str | None
) -> list[AttributeVector]:
    """The attribute vectors of the sliders, from up to 2,000 training images with and without each attribute.

    Args:
        vae: encodes the images.
        data: as in `open_images`; None for the run's training data.
        names: of the attributes; empty for the paper's six if the data set has them, else the first eight that vary.
        trained_on: the run's training data, None if unknown.

    Raises:
        NoSliders: neither data nor names were given, and the run's data set is missing or has no attributes.
        FastvaeError: the given data or names cannot be used.
    """
    try:
        images = _open(data if data is not None else _existing(trained_on), vae.image_size)
        names = tuple(dict.fromkeys(names)) or choose(images)
    except FastvaeError as error:
        if data is not None:
            raise
        if names:
            raise UsageError(f"--attributes needs a data set that has them, --data: {error}") from error
        raise NoSliders(str(error)) from error
    return attribute_vectors(vae, images, list(names), progress="attributes")


def choose(images: PackedImages) -> tuple[str, ...]:
    """Those of the paper's six that vary in the training images, or else the first eight attributes that vary.

    Raises:
        FastvaeError: no attribute varies.
    """
    has = images.attributes[images.indices("train")]
    varies = [name for name, v in zip(images.attribute_names, has.any(0) & ~has.all(0), strict=True) if v]
    if not varies:
        raise FastvaeError(f"{images.path} has no attribute that differs between the training images")
    return tuple(name for name in PAPER if name in varies) or tuple(varies[:_DEFAULT_COUNT])


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
    if data != EMBEDDED and not os.path.exists(resolved(data)):  # noqa: PTH110  (pathlib may raise)
        raise FastvaeError(f"the model's training data, {data}, do not exist")
    return data


def _read(path: Path) -> dict[str, Any]:
    try:
        values = read_json(path)
    except FastvaeError:
        return {}
    return values if isinstance(values, dict) else {}
