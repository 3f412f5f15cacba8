"""How close reconstructions are to held-out images: in pixels, structure, and the loss network's features."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fastvae.errors import FastvaeError
from fastvae.kernels import feature_loss
from fastvae.kernels.feature_loss import paper_weights
from fastvae.lossnet import LossNetwork
from fastvae.models import VAE
from fastvae.models.at_once import at_once
from fastvae.pictures import psnr_db, to_images
from fastvae.progress_bar import progress_bar

# Of SSIM's Gaussian window.
SSIM_SIDE = 11


@dataclass(frozen=True)
class Closeness:
    """Means over the images, reconstructed from z = mean and clipped to [-1, 1], not rounded to eight bits.

    Attributes:
        psnr_db: 10 log10(255^2 / mean squared error of an image's pixels).
        ssim: structural similarity of the colour channels, with the Gaussian window of 11 pixels (sigma 1.5), the
            population covariance and the range 255 of Wang et al. 2004; at most 1. None for images smaller than that.
        rec: L_rec of equations 5 and 6; None without a loss network.
    """

    psnr_db: float
    ssim: float | None
    rec: float | None


def structural_similarity() -> Callable[[np.ndarray, np.ndarray], float]:
    """SSIM of two images [H, W, 3] on the scale 0..255, H and W at least `SSIM_SIDE`.

    Raises:
        FastvaeError: scikit-image is not installed.
    """
    try:
        from skimage.metrics import structural_similarity
    except ImportError as error:
        raise FastvaeError("SSIM needs scikit-image: pip install -e '.[eval]'") from error
    settings = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    return lambda a, b: float(structural_similarity(a, b, data_range=255.0, channel_axis=-1, **settings))


@torch.inference_mode()
def reconstructions(vae: VAE, images: np.ndarray, indices: np.ndarray) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of images and their reconstructions, both float32 [B, 3, H, W] in [-1, 1] on the VAE's device.

    Raises:
        FastvaeError: a reconstruction is not finite.
    """
    device = vae.decoder.linear.weight.device
    for start in range(0, len(indices), count := at_once(vae.image_size)):
        batch = np.ascontiguousarray(images[indices[start : start + count]])
        originals = to_images(torch.from_numpy(batch).to(device))
        fakes = vae.reconstruct(originals).float()
        if not torch.isfinite(fakes).all():
            raise FastvaeError("the model's reconstructions contain NaN or infinity: did its training diverge?")
        yield originals, fakes.clamp(-1, 1)


@torch.inference_mode()
def closeness(
    vae: VAE, images: np.ndarray, indices: np.ndarray, loss_network: LossNetwork | None, label: str
) -> Closeness:
    """Reconstructs and compares.

    Args:
        vae: in eval mode.
        images: uint8 [N, H, W, 3].
        indices: which of them, at least one.
        loss_network: on the VAE's device, with the taps to compare; None to skip the feature distance.
        label: of the progress bar on standard error.

    Raises:
        FastvaeError: scikit-image is not installed, or a reconstruction is not finite.
    """
    ssim_of, psnr, ssim, rec = structural_similarity(), 0.0, 0.0, 0.0
    has_ssim = min(images.shape[1:3]) >= SSIM_SIDE
    with progress_bar(what=label, total=len(indices), unit=" images", leave=False) as bar:
        for originals, fakes in reconstructions(vae, images, indices):
            psnr += psnr_db(originals, fakes).sum().item()
            if loss_network is not None:
                weights = paper_weights(loss_network.channels)
                rec += feature_loss(loss_network(fakes), loss_network(originals), weights).item() * len(fakes)
            if has_ssim:
                ssim += sum(ssim_of(a, b) for a, b in zip(_scaled(originals), _scaled(fakes), strict=True))
            bar.update(len(fakes))
    n = len(indices)
    return Closeness(psnr / n, ssim / n if has_ssim else None, None if loss_network is None else rec / n)


def _scaled(images: Tensor) -> np.ndarray:
    return ((images + 1) * 127.5).permute(0, 2, 3, 1).cpu().numpy()
