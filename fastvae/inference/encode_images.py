"""The means of q(z|x) of many images, for attribute vectors, maps and classifiers."""

import numpy as np
import torch

from fastvae.inference.accelerated import AcceleratedVAE
from fastvae.models import VAE
from fastvae.pictures import to_images
from fastvae.progress_bar import progress_bar

_BATCH = 256


def encode_images(
    vae: VAE | AcceleratedVAE, images: np.ndarray, indices: np.ndarray | None = None, *, progress: str | None = None
) -> np.ndarray:
    """The mean of q(z|x) of each image.

    Args:
        vae: encodes; an accelerated one is faster.
        images: uint8 [N, H, W, 3]; may be a memory map, which is read batch by batch.
        indices: of the images to encode, in order; None for all.
        progress: label of a progress bar on standard error; None for no bar.

    Returns:
        float32 [n, latent].
    """
    indices = np.arange(len(images)) if indices is None else np.asarray(indices)
    means = np.empty((len(indices), vae.latent), np.float32)
    with (
        torch.inference_mode(),
        progress_bar(what=progress or "", total=len(indices), unit=" images", show=progress is not None) as bar,
    ):
        for start in range(0, len(indices), _BATCH):
            batch = torch.from_numpy(np.ascontiguousarray(images[indices[start : start + _BATCH]]))
            if isinstance(vae, VAE):
                device = vae.decoder.linear.weight.device
                batch = to_images(batch.to(device))
            means[start : start + len(batch)] = vae.encode(batch)[0].float().cpu().numpy()
            bar.update(len(batch))
    return means
