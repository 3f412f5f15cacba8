"""Directions in latent space along which one attribute changes.

    z_attribute = mean of z over images with it - mean of z over images without it

Source: Hou et al., section 4.3.2, with 2,000 images on either side.
"""

from dataclasses import dataclass

import numpy as np

from fastvae.data.packed import PackedImages
from fastvae.errors import FastvaeError, UsageError, suggest
from fastvae.inference.accelerated import AcceleratedVAE
from fastvae.inference.encode_images import encode_images
from fastvae.models import VAE

# Those of Fig. 12, as CelebA spells them.
PAPER = ("Bald", "Black_Hair", "Eyeglasses", "Male", "Smiling", "Mustache")


@dataclass(frozen=True)
class AttributeVector:
    """One direction.

    Attributes:
        name: of the attribute.
        direction: float32 [latent].
        with_it, without_it: how many images each mean was taken over.
    """

    name: str
    direction: np.ndarray
    with_it: int
    without_it: int


def attribute_vectors(
    vae: VAE | AcceleratedVAE,
    images: PackedImages,
    names: list[str],
    *,
    limit: int = 2000,
    seed: int = 0,
    progress: str | None = None,
) -> list[AttributeVector]:
    """The directions of some attributes, from the training images. Images wanted by several are encoded once.

    Args:
        vae: what encodes.
        images: with attributes, of the VAE's size.
        names: of the attributes, as the data set spells them.
        limit: images with an attribute, and as many without it; fewer where there are fewer.
        seed: of which ones.
        progress: as in `encode_images`.

    Raises:
        UsageError: there is no such attribute.
        FastvaeError: the data set has no attributes, or no image with, or none without, one of these.
    """
    if images.attributes is None:
        raise FastvaeError(f"{images.path} has no attributes; prepare CelebA with its list_attr_celeba.txt beside it")
    random = np.random.Generator(np.random.PCG64(seed))
    order = random.permutation(images.indices("train"))
    chosen: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for name in names:
        if name not in images.attribute_names:
            raise UsageError(f"no attribute {name!r}{suggest(name, images.attribute_names)}")
        has = images.attributes[order, images.attribute_names.index(name)] == 1
        chosen[name] = order[has][:limit], order[~has][:limit]
        if not all(map(len, chosen[name])):
            raise FastvaeError(f"every training image or none has the attribute {name}: there is no direction")
    wanted = np.unique(np.concatenate([side for sides in chosen.values() for side in sides]))
    means = encode_images(vae, images.images, wanted, progress=progress)
    found = []
    for name, sides in chosen.items():
        plus, minus = (means[np.searchsorted(wanted, side)].mean(0, dtype=np.float64) for side in sides)
        found.append(AttributeVector(name, (plus - minus).astype(np.float32), *map(len, sides)))
    return found
