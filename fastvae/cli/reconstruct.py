"""`fastvae reconstruct RUN IMAGE...`: images beside what the VAE makes of them."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

from fastvae.cli.parsing import RunName, Weights, parse
from fastvae.errors import FastvaeError, UsageError

_COLUMNS = 8


@dataclass(frozen=True)
class _Command:
    """Encodes images to the mean of q(z|x), decodes it, and writes both as one picture, originals on top."""

    run: tyro.conf.Positional[RunName]  # a run folder, one of its checkpoints, a model.safetensors, or user/name
    images: tyro.conf.Positional[tuple[Path, ...]]  # picture files; cropped to a square and resized as in `prepare`
    weights: Weights = "auto"  # of a run with --ema: the average, or those of the last step; auto: the average
    out: Path = Path("reconstructions.png")  # picture to write: .png, .jpg, .jpeg or .webp


def run(argv: list[str]) -> int:
    """Parses the flags, reconstructs and writes.

    Raises:
        FastvaeError: the run cannot be read, no image can, or the picture is too large or cannot be written.
    """
    command = parse(_Command, prog="fastvae reconstruct", args=argv)
    if not command.images:
        raise UsageError("give one or more image files after the run")
    import torch

    from fastvae import load, pictures
    from fastvae.cli.targets import check_not_read
    from fastvae.models.at_once import at_once
    from fastvae.pictures import to_images

    pictures.check_picture(command.out)
    check_not_read(command.out, command.images)
    vae = load(command.run, weights=command.weights)
    size = (vae.image_size, vae.image_size)
    cells = pictures.pair_cells(len(command.images), _COLUMNS)
    columns = min(_COLUMNS, len(command.images))
    pictures.check_size(command.out, *pictures.sheet_size(cells, columns, size), "give fewer images")
    # Together they are half of the picture, and only the readable ones have places in it.
    originals = _read(command.images, vae.image_size)
    sheet = pictures.PairSheet(len(originals), _COLUMNS, size)
    for start in range(0, len(originals), count := at_once(vae.image_size)):
        piece = np.stack(originals[start : start + count])
        with torch.inference_mode():
            fakes = vae.reconstruct(to_images(torch.from_numpy(piece)))
        sheet.put(piece, pictures.finite_pixels(fakes), start)
    pictures.save_picture(sheet.pixels, command.out)
    print(f"{len(originals)} images and their reconstructions below them in {command.out}")
    return 0


def _read(paths: Sequence[Path], size: int) -> list[np.ndarray]:
    from fastvae.data.decoders.encoded import BrokenImage
    from fastvae.data.decoders.pillow import decode_file

    images = []
    for path in paths:
        image = decode_file(path, crop="auto", size=size)
        if isinstance(image, BrokenImage):
            print(f"skipped {path}: {image.reason}", file=sys.stderr)
        else:
            images.append(image)
    if not images:
        raise FastvaeError(f"none of the {len(paths)} files could be read as an image")
    return images
