"""`fastvae generate RUN`: images from draws of the prior."""

from dataclasses import dataclass
from pathlib import Path

import tyro

from fastvae.cli.parsing import LARGEST_SEED, RunName, Weights, parse
from fastvae.ranges import between, require

_NUMBERS = between(1, 2**31)


@dataclass(frozen=True)
class _Command:
    """Turns draws of N(0, I) into images by a run's decoder or generator, and writes them as one picture."""

    run: tyro.conf.Positional[RunName]  # a run folder, one of its checkpoints, a model.safetensors, or user/name
    weights: Weights = "auto"  # of a run with --ema: the average, or those of the last step; auto: the average
    out: Path = Path("samples.png")  # picture to write: .png, .jpg, .jpeg or .webp
    count: int = 64  # images, > 0; as many as fit into one picture
    columns: int = 8  # images a row, > 0
    seed: int = 0  # of the draws, 0 to 2^63 - 1

    def __post_init__(self) -> None:
        require(self, count=_NUMBERS, columns=_NUMBERS, seed=between(0, LARGEST_SEED))


def run(argv: list[str]) -> int:
    """Parses the flags, draws and writes.

    Raises:
        FastvaeError: the run cannot be read, the picture would be too large, or cannot be written.
    """
    command = parse(_Command, prog="fastvae generate", args=argv)
    from fastvae import pictures
    from fastvae.cli.targets import check_not_read
    from fastvae.runs.sampler import draw_samples, load_sampler

    pictures.check_picture(command.out)
    check_not_read(command.out, [])
    sampler = load_sampler(command.run, weights=command.weights)
    size = (sampler.image_size, sampler.image_size)
    advice = f"{command.count:,} images are too many for it in {command.columns:,} columns"
    pictures.check_size(command.out, *pictures.sheet_size(command.count, command.columns, size), advice)
    sheet = pictures.Sheet(command.count, command.columns, size)
    done = 0
    for piece in draw_samples(sampler, command.count, command.seed):
        sheet.put(piece, range(done, done + len(piece)))
        done += len(piece)
    pictures.save_picture(sheet.pixels, command.out)
    print(f"{command.count} images in {command.out}")
    return 0
