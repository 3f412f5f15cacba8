"""Pictures of a run: samples, and held-out images beside their reconstructions."""

from pathlib import Path

import numpy as np
import torch

from fastvae import pictures
from fastvae.models.at_once import at_once
from fastvae.objectives import Objective
from fastvae.train.step import Step

_IMAGES = 32


@torch.no_grad()
def save_sheets(objective: Objective, step: Step, held_out: np.ndarray, folder: Path, done: int, seed: int) -> Path:
    """Writes the pictures of every system of a run, always of the same images and the same z.

    Args:
        objective: as it is to be shown; left in training mode.
        step: whose precision and device are used.
        held_out: uint8 [N, H, W, 3], RGB; the first 32 are shown.
        folder: that the pictures go into.
        done: steps of training, for their names.
        seed: of z.

    Returns:
        The last one: reconstructions where the system makes them.
    """
    for name, system in objective.systems().items():
        generator = torch.Generator().manual_seed(seed)
        noise = torch.randn(_IMAGES * 2, system.noise_size, generator=generator).to(step.device)
        system.train(False)
        shown, batch = torch.from_numpy(held_out[:_IMAGES]), at_once(held_out.shape[1])
        with step.precision():
            samples = np.concatenate([pictures.to_pixels(system.sample(z)) for z in noise.split(batch)])
            fakes = [system.reconstruct(step.images(part)) for part in shown.split(batch)]
        system.train(True)
        ending = f"{name}-{done:08d}.png" if name else f"{done:08d}.png"
        picture = folder / f"samples-{ending}"
        pictures.save_picture(pictures.grid(samples, 8), picture)
        if fakes[0] is not None:
            sheet = pictures.beside(held_out[:_IMAGES], np.concatenate([pictures.to_pixels(part) for part in fakes]))
            picture = folder / f"reconstructions-{ending}"
            pictures.save_picture(sheet, picture)
    return picture
