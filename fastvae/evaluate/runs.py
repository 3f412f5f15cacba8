"""The runs to evaluate: what of each draws samples, and what reconstructs."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fastvae.errors import UsageError
from fastvae.inference.sampler import Sampler, load_samplers
from fastvae.models import VAE


@dataclass(frozen=True)
class Run:
    """One row of the table.

    Attributes:
        name: for people, another one for each row.
        sampler: draws images from the prior.
        vae: reconstructs; None for a GAN, which has no encoder.
    """

    name: str
    sampler: Sampler
    vae: VAE | None


def load_runs(paths: Sequence[str | Path], device: str) -> list[Run]:
    """All of them, the views of a multi-view run one by one.

    Raises:
        UsageError: they are not of one image size.
        FastvaeError: one cannot be read.
    """
    runs: list[Run] = []
    for path in paths:
        models = load_samplers(path, device=device)
        found = [Run(name, model, model if isinstance(model, VAE) else None) for name, model in models.items()]
        taken = {run.name for run in runs}
        # Two runs/*/checkpoints/step-00000600 would be told apart by nothing.
        runs += [Run(f"{path}: {r.name}" if r.name in taken else r.name or str(path), r.sampler, r.vae) for r in found]
    for run in runs[1:]:
        if run.sampler.image_size != runs[0].sampler.image_size:
            first, other = (f"{r.name} makes {r.sampler.image_size}x{r.sampler.image_size}" for r in (runs[0], run))
            raise UsageError(f"{first} pixels and {other}: runs of one image size can be compared; evaluate them apart")
    return runs
