"""`fastvae generate RUN`: images from draws of the prior."""

from dataclasses import dataclass
from pathlib import Path

import tyro

from fastvae.config import at_least, require


@dataclass(frozen=True)
class _Command:
    """Turns draws of N(0, I) into images by a run's decoder or generator, and writes them as one picture."""

    run: tyro.conf.Positional[Path]  # a run folder, one of its checkpoints, or a model.safetensors
    out: Path = Path("samples.png")  # picture to write
    count: int = 64  # images, > 0
    columns: int = 8  # images a row, > 0
    seed: int = 0  # of the draws, >= 0

    def __post_init__(self) -> None:
        require(self, count=at_least(1), columns=at_least(1), seed=at_least(0))


def run(argv: list[str]) -> int:
    """Parses the flags, draws and writes.

    Raises:
        FastvaeError: the run cannot be read, or the picture cannot be written.
    """
    command = tyro.cli(_Command, prog="fastvae generate", args=argv)
    import torch

    from fastvae import pictures
    from fastvae.inference.sampler import load_sampler

    sampler = load_sampler(command.run)
    with torch.inference_mode():
        images = sampler.sample(command.count, generator=torch.Generator().manual_seed(command.seed))
    pictures.save_png(pictures.grid(pictures.to_pixels(images), command.columns), command.out)
    print(f"{command.count} images in {command.out}")
    return 0
