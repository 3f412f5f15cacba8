"""`fastvae prepare SOURCE OUT`: decode a folder of images once."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro


@dataclass(frozen=True)
class _Command:
    """Decodes CelebA, CIFAR-10 or any folder of images into one packed file that training reads at memory speed."""

    source: tyro.conf.Positional[Path]  # folder of images
    out: tyro.conf.Positional[Path]  # file to write, e.g. celeba64.fvae
    kind: Literal["auto", "celeba", "cifar10", "folder"] = "auto"  # what the folder is; auto looks
    image_size: int | None = None  # pixels a side, 8 to 1024; default 64, for CIFAR-10 32
    # auto: the authors' box for 178x218 pictures, else the largest centred square; whole: all of it
    crop: Literal["auto", "celeba", "center", "whole"] = "auto"
    box: Annotated[tuple[int, int, int, int] | None, tyro.conf.arg(metavar="LEFT TOP RIGHT BOTTOM")] = (
        None  # crop to this box instead, in pixels
    )
    decoder: Literal["auto", "pillow", "dali"] = "auto"  # auto: DALI where it is installed
    annotations: Path | None = None  # folder with CelebA's two lists, if they are not near the images
    workers: int | None = None  # decoding threads; default one a core
    overwrite: bool = False  # replace OUT if it exists


def run(argv: list[str]) -> int:
    """Parses the flags and prepares.

    Raises:
        FastvaeError: see `prepare`.
    """
    command = tyro.cli(_Command, prog="fastvae prepare", args=argv, config=(tyro.conf.FlagCreatePairsOff,))
    from fastvae.data.prepare import prepare

    whole_or_named = None if command.crop == "whole" else command.crop
    packed = prepare(
        command.source,
        command.out,
        kind=command.kind,
        image_size=command.image_size,
        crop=command.box or whole_or_named,
        decoder=command.decoder,
        annotations=command.annotations,
        workers=command.workers,
        overwrite=command.overwrite,
    )
    print(f"{packed.path}: train on it with --data {packed.path} --image-size {packed.images.shape[1]}")
    return 0
