"""`fastvae generate RUN`: images from draws of the prior."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro

from fastvae.cli.parsing import LARGEST_SEED, RunName, Weights, parse
from fastvae.errors import FastvaeError, UsageError
from fastvae.files.places import resolved
from fastvae.ranges import between, require

if TYPE_CHECKING:
    from fastvae.runs.sampler import Sampler

_NUMBERS = between(1, 2**31)


@dataclass(frozen=True)
class _Command:
    """Turns draws of N(0, I) into images by a run's decoder or generator, and writes them as one picture, or one each.

    Image number k of a seed is the same in every command. With --folder, whatever interrupts the command, the same
    command goes on with what is there.
    """

    run: tyro.conf.Positional[RunName]  # a run folder, one of its checkpoints, a model.safetensors, or user/name
    weights: Weights = "auto"  # of a run with --ema: the average, or those of the last step; auto: the average
    out: Path | None = None  # picture to write: .png, .jpg, .jpeg or .webp; default: samples.png
    folder: Path | None = None  # write a PNG for each image into this folder instead, such as seed0-000123.png
    count: int = 64  # images, > 0; without --folder as many as fit into one picture
    columns: int = 8  # images a row, > 0
    seed: int = 0  # of the draws, 0 to 2^63 - 1
    first: int = 0  # number of the first image, 0 to 2^63 - 1
    device: Literal["auto", "cpu", "cuda"] = "auto"  # auto: CUDA if available
    overwrite: bool = False  # with --folder: replace pictures of the same names that are not of this model

    def __post_init__(self) -> None:
        seeds = between(0, LARGEST_SEED)
        require(self, count=_NUMBERS, columns=_NUMBERS, seed=seeds, first=seeds)
        if self.out is not None and self.folder is not None:
            raise UsageError("give --out for one picture or --folder for one each, not both")

    @property
    def numbers(self) -> range:
        """Of the images."""
        return range(self.first, self.first + self.count)


def run(argv: list[str]) -> int:
    """Parses the flags, draws and writes.

    Raises:
        FastvaeError: the run cannot be read, the picture would be too large, or cannot be written.
    """
    command = parse(_Command, prog="fastvae generate", args=argv)
    from fastvae import pictures
    from fastvae.cli.targets import check_not_read
    from fastvae.files.atomic_write import check_writable
    from fastvae.machine import choose_device
    from fastvae.runs.sampler import load_sampler

    out = command.out or resolved("samples.png")
    if command.folder is None:
        pictures.check_picture(out)
        check_not_read(out, [])
    else:
        check_writable(command.folder / "image.png", "--folder")
    sampler = load_sampler(command.run, weights=command.weights, device=choose_device(command.device).type)
    if command.folder is None:
        _one_picture(command, out, sampler)
    else:
        _one_each(command, command.folder, sampler)
    return 0


def _one_picture(command: _Command, out: Path, sampler: "Sampler") -> None:
    from fastvae import pictures
    from fastvae.runs.draws import numbered_images

    size = (sampler.image_size, sampler.image_size)
    advice = f"{command.count:,} images are too many for it in {command.columns:,} columns"
    pictures.check_size(out, *pictures.sheet_size(command.count, command.columns, size), advice)
    sheet = pictures.Sheet(command.count, command.columns, size)
    for number, image in numbered_images(sampler, command.seed, command.numbers):
        sheet.put(image[None], [number - command.first])
    pictures.save_picture(sheet.pixels, out)
    print(f"{command.count} images in {out}")


def _one_each(command: _Command, folder: Path, sampler: "Sampler") -> None:
    from fastvae.files.tensor_file import digest_of
    from fastvae.progress_bar import progress_bar
    from fastvae.runs.drawn_files import DrawnFiles
    from fastvae.runs.draws import numbered_images

    weights = {name: tensor.cpu() for name, tensor in sampler.state_dict().items()}
    files = DrawnFiles(folder, weights=digest_of(weights), seed=command.seed)
    finished = files.finished(command.numbers, overwrite=command.overwrite)
    before, count = len(finished), command.count
    missing = (number for number in command.numbers if number not in finished)
    options = {"total": count, "initial": before, "unit": " images"}
    written = before
    try:
        with progress_bar(what="generate", **options) as bar:
            for number, image in numbered_images(sampler, command.seed, missing):
                files.write(number, image)
                written += 1
                bar.update()
    except FastvaeError as error:
        raise type(error)(f"{error}. {written} of {count} images are there; the same command goes on") from error
    except BaseException:
        print(f"{written} of {count} images are in {folder}; the same command goes on", file=sys.stderr)
        raise
    already = f", of which {before} were there already" if before else ""
    print(f"{count} images in {folder}{already}: {files.path(command.first).name} and so on")
