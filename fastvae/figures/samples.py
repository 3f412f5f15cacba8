"""Random samples of several systems side by side (Figs. 3, 4, 7, 8 and 10)."""

from collections.abc import Sequence

import numpy as np

from fastvae.figures.sheet import Label, Panel, draw
from fastvae.runs.open import Run
from fastvae.runs.sampler import Sampler, draw_samples


def sample(model: Sampler, count: int, seed: int) -> np.ndarray:
    """uint8 [count, H, W, 3] from z ~ N(0, I); one seed gives the same z for all models of one latent size."""
    return np.concatenate(list(draw_samples(model, count, seed)))


def caption(seed: int, latents: Sequence[int]) -> str:
    """What a sheet says of its panels, of models of these latent sizes."""
    same = "" if len(latents) == 1 else " The same z at the same position in every panel"
    same += ", among models of one latent size." if len(set(latents)) > 1 else "." if same else ""
    return f"Decoded from z ~ N(0, I), seed {seed}.{same}"


def figure(runs: Sequence[Run], rows: int, columns: int, seed: int, across: int) -> np.ndarray:
    """A sheet with a panel for each run, `across` of them side by side; image [i, j] has the same z in all panels."""
    sizes = {run.model.image_size for run in runs}
    panels = []
    for run in runs:
        pixels = sample(run.model, rows * columns, seed)
        size = f"{run.model.image_size}x{run.model.image_size} pixels" if len(sizes) > 1 else ""
        heading = Label(run.name, ", ".join(filter(None, [run.trained, size])))
        panels.append(Panel(pixels.reshape(rows, columns, *pixels.shape[1:]), heading))
    return draw(panels, "Random samples", caption(seed, [run.model.latent for run in runs]), across=across)
