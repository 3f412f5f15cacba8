"""Interpolation in latent space between two images (Fig. 11).

z = (1 - a) z_left + a z_right, a = 0, 0.1, ..., 1

Source: Hou et al., section 4.3.1.
"""

import numpy as np
import torch

from fastvae.figures.sheet import Panel, draw
from fastvae.inference.accelerated import AcceleratedVAE
from fastvae.inference.encode_images import encode_images
from fastvae.models import VAE
from fastvae.pictures import finite_pixels
from fastvae.runs.open import Run

STEPS = np.linspace(0, 1, 11)  # a


def decode_rows(vae: VAE | AcceleratedVAE, z: np.ndarray) -> np.ndarray:
    """Decodes z, float [R, C, latent], to uint8 images [R, C, H, W, 3]."""
    with torch.inference_mode():
        rows = [finite_pixels(vae.decode(torch.from_numpy(row.astype(np.float32)))) for row in z]
    return np.stack(rows)


def interpolate(vae: VAE | AcceleratedVAE, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Two uint8 [N, H, W, 3] -> uint8 [N, 11, H, W, 3], from the reconstructions of `left` to those of `right`."""
    z_left, z_right = encode_images(vae, left)[:, None], encode_images(vae, right)[:, None]
    a = STEPS[:, None]
    return decode_rows(vae, (1 - a) * z_left + a * z_right)


def figure(run: Run, left: np.ndarray, right: np.ndarray, source: str) -> np.ndarray:
    """A sheet with a row for each pair, with the two originals at the ends."""
    steps = [f"a = {a:.1f}" if 0 < a < 1 else f"a = {a:.0f}" for a in STEPS]
    panels = [
        Panel(left[:, None], columns=["original"]),
        Panel(interpolate(run.model, left, right), columns=steps),
        Panel(right[:, None], columns=["original"]),
    ]
    caption = (
        "Each row decodes z = (1 - a) z_left + a z_right, where z_left and z_right are the means of q(z|x) of the two "
        f"originals ({source})."
    )
    return draw(panels, f"Interpolation between two images: {run.title}", caption)
