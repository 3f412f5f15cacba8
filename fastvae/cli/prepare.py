"""`fastvae prepare SOURCE OUT`: decode a folder of images once; `fastvae prepare --check FILE`: is one undamaged?"""

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import tyro

from fastvae.cli.parsing import parse
from fastvae.errors import UsageError
from fastvae.files.places import shown

_Path = Annotated[Path | None, tyro.conf.arg(metavar="PATH")]
# Not a Path: "hub:user/name" is none.
_Source = Annotated[str | None, tyro.conf.arg(metavar="SOURCE")]
_Out = Annotated[Path | None, tyro.conf.arg(metavar="OUT")]
_Box = Annotated[tuple[int, int, int, int] | None, tyro.conf.arg(metavar="LEFT TOP RIGHT BOTTOM")]
_logger = logging.getLogger("fastvae")


@dataclass(frozen=True)
class _Command:
    """Decodes CelebA, CIFAR-10 or any folder of images into one packed file that training reads at memory speed.

    Reads zip files, Parquet files and WebDatasets without unpacking them, and downloads hub:USER/NAME.

    With --check, says what a packed file is, and whether every block of it matches its checksum.
    """

    source: tyro.conf.Positional[_Source] = None  # folder of images; zip, tar or Parquet file; hub:USER/NAME
    out: tyro.conf.Positional[_Out] = None  # file to write, e.g. celeba64.fvae
    # what SOURCE is; auto looks
    kind: Literal["auto", "celeba", "cifar10", "cifar100", "folder", "parquet", "webdataset"] = "auto"
    # pixels a side, 8 to 1024; default 64, for CIFAR-10 32. The networks take 4, 5, 6 or 7 times a power of two
    image_size: int | None = None
    # auto: the authors' box for 178x218 pictures, else the largest centred square; whole: all of it
    crop: Literal["auto", "celeba", "center", "whole"] = "auto"
    box: _Box = None  # crop to this box instead, in pixels
    decoder: Literal["auto", "pillow", "dali"] = "auto"  # auto: DALI where it is installed
    annotations: _Path = None  # folder with CelebA's two lists, if they are not near the images
    workers: int | None = None  # decoding threads; default one a core
    overwrite: bool = False  # replace OUT if it exists
    check: _Path = None  # a packed file to read and compare with its checksums; nothing is prepared


def run(argv: list[str]) -> int:
    """Parses the flags, and prepares or checks.

    Raises:
        FastvaeError: see `prepare` and `PackedImages.verify`.
    """
    command = parse(_Command, prog="fastvae prepare", args=argv, config=(tyro.conf.FlagCreatePairsOff,))
    if command.check is not None:
        if command.source is not None:
            raise UsageError("--check FILE reads a packed file and prepares nothing: leave SOURCE and OUT out")
        if command != replace(_Command(), check=command.check):
            raise UsageError("--check FILE reads a packed file and prepares nothing: leave the other flags out")
        return _check(command.check)
    if command.source is None or command.out is None:
        raise UsageError("give the folder of images and the file to write: fastvae prepare SOURCE OUT")
    if command.box is not None and command.crop != "auto":
        raise UsageError(f"--box names what is cut out, and --crop {command.crop} does, too: leave one of them out")
    from fastvae.data.prepare import prepare

    whole_or_named = None if command.crop == "whole" else command.crop
    stages = _stages_flag(command.image_size)
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
    path, size = shown(packed.path), packed.images.shape[1]
    if stages is None:
        print(f"{path}: images of {size}x{size} pixels, on which no network can be trained")
    else:
        print(f"{path}: train on it with --data {path} --image-size {size}{stages}")
    return 0


def _stages_flag(image_size: int | None) -> str | None:
    """What `fastvae train` needs beside --image-size: "", or --stages; None if no network takes the size.

    What is not "" is said as a warning before the work.
    """
    if image_size is None or not 8 <= image_size <= 1024:  # the defaults fit; `prepare` refuses the others
        return ""
    from fastvae.models.stages import count_stages

    try:
        count_stages(image_size)
    except ValueError as error:
        possible = image_size % 2 == 0
        _logger.warning(
            "`fastvae train` %s: %s", "will need --stages" if possible else "will refuse these images", error
        )
        return " --stages N" if possible else None
    return ""


def _check(path: Path) -> int:
    from fastvae.data.packed import SPLITS, PackedImages

    packed = PackedImages.open(path)
    count, height, width, _ = packed.images.shape
    made = {name: packed.header.get(name) for name in ("kind", "source", "decoder")}
    parts = [f"{name} {shown(value)}" for name, value in made.items() if isinstance(value, str)]
    counts = ", ".join(f"{len(packed.indices(split))} {split}" for split in SPLITS)
    print(
        f"{shown(packed.path)}: {count} images of {height}x{width} ({counts}), {len(packed.attribute_names)} attributes"
    )
    if parts:
        print("; ".join(parts))
    packed.verify(progress=True)
    if packed.unknown_blocks:
        later = ", ".join(map(shown, packed.unknown_blocks))
        print(f"not checked, since a later version of fastvae has written them: {later}")
    print("every block matches its checksum")
    return 0
