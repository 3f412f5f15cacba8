"""`fastvae reconstruct RUN IMAGE...`: images beside what the VAE makes of them."""

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

from fastvae.errors import FastvaeError, UsageError


@dataclass(frozen=True)
class _Command:
    """Encodes images to the mean of q(z|x), decodes it, and writes both as one picture, originals on top."""

    run: tyro.conf.Positional[Path]  # a run folder, one of its checkpoints, or a model.safetensors
    images: tyro.conf.Positional[tuple[Path, ...]]  # picture files; cropped to a square and resized as in `prepare`
    out: Path = Path("reconstructions.png")  # picture to write


def run(argv: list[str]) -> int:
    """Parses the flags, reconstructs and writes.

    Raises:
        FastvaeError: the run cannot be read, no image can, or the picture cannot be written.
    """
    command = tyro.cli(_Command, prog="fastvae reconstruct", args=argv)
    if not command.images:
        raise UsageError("give one or more image files after the run")
    import torch

    from fastvae import load, pictures
    from fastvae.train.step import to_images

    vae = load(command.run)
    originals = _read(command.images, vae.image_size)
    with torch.inference_mode():
        fakes = torch.cat([vae.reconstruct(to_images(batch)) for batch in torch.from_numpy(originals).split(64)])
    pictures.save_png(pictures.beside(originals, pictures.to_pixels(fakes)), command.out)
    print(f"{len(originals)} images and their reconstructions below them in {command.out}")
    return 0


def _read(paths: tuple[Path, ...], size: int) -> np.ndarray:
    from fastvae.data.decode_pillow import BrokenImage, decode_file

    images = []
    for path in paths:
        image = decode_file(path, crop="auto", size=size)
        if isinstance(image, BrokenImage):
            print(f"skipped {path}: {image.reason}", file=sys.stderr)
        else:
            images.append(image)
    if not images:
        raise FastvaeError(f"none of the {len(paths)} files could be read as an image")
    return np.stack(images)
