"""The same images, reconstructed by several systems (Figs. 5, 6 and 9)."""

from collections.abc import Sequence

import numpy as np
import torch

from fastvae.figures.sheet import Label, Panel, draw
from fastvae.models import VAE
from fastvae.models.at_once import at_once
from fastvae.pictures import finite_pixels, psnr_db, to_images
from fastvae.runs.open import Run


def reconstruct(vae: VAE, originals: np.ndarray) -> np.ndarray:
    """decode(mean of q(z|x)) of uint8 images [N, H, W, 3], as uint8 images."""
    batches = torch.from_numpy(originals).split(at_once(vae.image_size))
    with torch.inference_mode():
        return finite_pixels(torch.cat([vae.reconstruct(to_images(x)) for x in batches]))


def mean_psnr_db(originals: np.ndarray, pixels: np.ndarray) -> float:
    """`pictures.psnr_db` averaged over uint8 images [N, H, W, 3]."""
    return psnr_db(*(to_images(torch.from_numpy(x)) for x in (originals, pixels))).mean().item()


def figure(runs: Sequence[Run], originals: np.ndarray, source: str) -> np.ndarray:
    """A sheet: the originals, uint8 [N, H, W, 3], in the first row, then a row for each run, labelled with its PSNR."""
    rows, labels = [originals], [Label("Original", source)]
    for run in runs:
        rows.append(reconstruct(run.model, originals))
        quality = f"PSNR {mean_psnr_db(originals, rows[-1]):.1f} dB"
        labels.append(Label(run.name, "\n".join(filter(None, [run.trained, quality]))))
    caption = "Decoded from the mean of q(z|x). PSNR is the mean over the images of the row."
    return draw([Panel(np.stack(rows), rows=labels)], "Reconstructions", caption)
