"""Images of the prior that have numbers: image k of a seed is the same whichever others are drawn with it."""

import itertools
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from fastvae.runs.sampler import Sampler, decoded_pixels

# Images decoded at once: those whose numbers have the same quotient by it, whether or not all of them are wanted,
# because convolutions of other batches may round differently.
_BLOCK = 16


def numbered_latents(seed: int, numbers: Sequence[int], latent: int) -> Tensor:
    """z of some numbers, each a function of seed and number alone; the first dimensions do not depend on how many.

    Box and Muller's transform (1958) of raw 64-bit PCG64 output in float64,

        u = (r >> 11 + 1/2) / 2^53,   z_2i = sqrt(-2 ln u_2i) cos(2 pi u_2i+1),   z_2i+1 the same with sin,

    rounded to float32. As for `data.order.epoch_order`, NumPy guarantees the raw output, and a test pins z.

    Args:
        seed: 0 or more.
        numbers: of the images, 0 or more.
        latent: dimensions of z.

    Returns:
        float32 [n, latent], standard normal.
    """
    keys = (np.random.SeedSequence(seed, spawn_key=(number,)) for number in numbers)
    raw = np.stack([np.random.PCG64(key).random_raw(latent + latent % 2) for key in keys])
    u = ((raw >> np.uint64(11)) + 0.5) / 2**53
    radius, angle = np.sqrt(-2 * np.log(u[:, ::2])), 2 * np.pi * u[:, 1::2]
    z = np.stack([radius * np.cos(angle), radius * np.sin(angle)], 2).reshape(len(raw), -1)
    return torch.from_numpy(z[:, :latent].astype(np.float32))


def numbered_images(model: Sampler, seed: int, numbers: Iterable[int]) -> Iterator[tuple[int, np.ndarray]]:
    """Each number with its image, uint8 [H, W, 3], in constant memory.

    Args:
        model: decodes.
        seed: 0 or more.
        numbers: ascending, 0 or more.

    Raises:
        FastvaeError: the model's images are not finite.
    """
    for block, wanted in itertools.groupby(numbers, lambda number: number // _BLOCK):
        z = numbered_latents(seed, range(block * _BLOCK, (block + 1) * _BLOCK), model.latent)
        pixels = decoded_pixels(model, z)
        for number in wanted:
            yield number, pixels[number % _BLOCK]
