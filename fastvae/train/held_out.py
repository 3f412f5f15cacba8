"""How well a model reconstructs images that it was not trained on."""

import math

import numpy as np
import torch
from torch import Tensor

from fastvae.objectives import Objective
from fastvae.pictures import psnr_db, to_images
from fastvae.train.step import Step


@torch.no_grad()
def evaluate(objective: Objective, step: Step, pixels: np.ndarray, batch_size: int = 64) -> dict[str, float]:
    """Reconstruction quality with running statistics and z = mean.

    PSNR of an image is 10 log10(255^2 / mean squared error of its pixels) in dB, averaged over the images. Sharpness
    is the root mean square difference of neighbouring pixels in the reconstructions over that in the originals: 1 is
    as crisp as the originals, blur is less, noise can be more. (Squared, because blurring an edge leaves the sum of its
    absolute differences as it was.) L_rec is eq. 6 in the objective's own layers and weights,
    where it has them.

    Args:
        objective: on its device; left in training mode.
        step: gives device and precision.
        pixels: uint8 [N, H, W, 3], N > 0.
        batch_size: images at once.

    Returns:
        {"psnr_db": ..., "sharpness": ..., "rec": ...}, empty for a system that does not reconstruct.
    """
    psnr, rec, edges, fake_edges = 0.0, 0.0, 0.0, 0.0
    objective.train(False)
    try:
        for start in range(0, len(pixels), batch_size):
            images = to_images(torch.from_numpy(pixels[start : start + batch_size]).to(step.device))
            with step.precision():
                fakes = objective.reconstruct(images)
                if fakes is None:
                    return {}
                if objective.loss_network is not None:
                    features, fake_features = objective.loss_network(images), objective.loss_network(fakes)
                    rec += objective.feature_distance(fake_features, features).item() * len(images)
            fakes = fakes.float().clamp(-1, 1)
            edges, fake_edges = edges + _edges(images), fake_edges + _edges(fakes)
            psnr += psnr_db(images, fakes).sum().item()
    finally:
        objective.train(True)
    found = {"psnr_db": psnr / len(pixels), "sharpness": math.sqrt(fake_edges / max(edges, 1e-12))}
    if objective.loss_network is not None:
        found["rec"] = rec / len(pixels)
    return found


def _edges(images: Tensor) -> float:
    """Sum over images and directions of the mean squared difference of neighbouring pixels."""
    across, down = images.diff(dim=3).square(), images.diff(dim=2).square()
    return (across.flatten(1).mean(1) + down.flatten(1).mean(1)).sum().item()
