"""Reconstruction quality on held-out images."""

import math

import numpy as np
import torch
from torch import Tensor

from fastvae.models.at_once import at_once
from fastvae.objectives import Objective
from fastvae.pictures import psnr_db
from fastvae.train.step import Step


@torch.no_grad()
def evaluate(objective: Objective, step: Step, pixels: np.ndarray) -> dict[str, float]:
    """Reconstruction quality in evaluation mode with z = mean.

    PSNR of an image is 10 log10(255^2 / mean squared error of its pixels) in dB, averaged over the images. Sharpness
    is the root mean square difference of neighbouring pixels in the reconstructions, divided by that in the originals:
    1 is as sharp as the originals, blur gives less, noise can give more. (Squared, because blurring an edge does not
    change the sum of its absolute differences.) L_rec is eq. 6 with the objective's own layers and weights, if it has
    a feature loss.

    Args:
        objective: on its device; in training mode afterwards.
        step: gives device and precision.
        pixels: uint8 [N, H, W, 3], N > 0.

    Returns:
        {"psnr_db": ..., "sharpness": ..., "rec": ...}, empty if the system has no encoder.
    """
    psnr, rec, edges, fake_edges = 0.0, 0.0, 0.0, 0.0
    batch_size = at_once(pixels.shape[1])
    objective.train(False)
    try:
        for start in range(0, len(pixels), batch_size):
            images = step.images(torch.from_numpy(pixels[start : start + batch_size]))
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
    metrics = {"psnr_db": psnr / len(pixels), "sharpness": math.sqrt(fake_edges / max(edges, 1e-12))}
    if objective.loss_network is not None:
        metrics["rec"] = rec / len(pixels)
    return metrics


def _edges(images: Tensor) -> float:
    """Sum over images and directions of the mean squared difference of neighbouring pixels."""
    across, down = images.diff(dim=3).square(), images.diff(dim=2).square()
    return (across.flatten(1).mean(1) + down.flatten(1).mean(1)).sum().item()
