"""Directions in latent space along which one attribute changes.

    z_attribute = mean of z over images with it - mean of z over images without it

Source: Hou et al., section 4.3.2, with 2,000 images each.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fastvae.data.packed import PackedImages
from fastvae.errors import FastvaeError, UsageError, suggest
from fastvae.inference.accelerated import AcceleratedVAE
from fastvae.inference.encode_images import encode_images
from fastvae.models import VAE

# The attributes of Fig. 12, as CelebA spells them.
_PAPER = ("Bald", "Black_Hair", "Eyeglasses", "Male", "Smiling", "Mustache")
# An attribute chosen by default: training images that have it, or lack it, over all training images.
_MIN_SHARE = 0.01


@dataclass(frozen=True)
class AttributeVector:
    """The direction of one attribute.

    Attributes:
        name: of the attribute.
        direction: float32 [latent].
        with_it, without_it: numbers of images with and without it that the means were taken over.
    """

    name: str
    direction: np.ndarray
    with_it: int
    without_it: int


def choose_attributes(images: PackedImages, names: Sequence[str] = ()) -> list[str]:
    """The named attributes; without names six that vary: the paper's where the data set has them, then its first ones.

    Raises:
        UsageError: there is no such attribute.
        FastvaeError: the data set has no attributes, or none that varies.
    """
    if images.attributes is None:
        raise FastvaeError(f"{images.path} has no attributes; prepare CelebA with its list_attr_celeba.txt beside it")
    for name in names:
        if name not in images.attribute_names:
            raise UsageError(f"no attribute {name!r}{suggest(name, images.attribute_names)}")
    if names:
        return list(dict.fromkeys(names))
    share = dict(zip(images.attribute_names, images.attributes[images.indices("train")].mean(0), strict=True))
    ordered = dict.fromkeys([*(name for name in _PAPER if name in share), *share])
    varying = [name for name in ordered if _MIN_SHARE <= share[name] <= 1 - _MIN_SHARE]
    if not varying:
        raise FastvaeError(f"no attribute of {images.path} varies enough to have a direction; name the ones you want")
    return varying[: len(_PAPER)]


def attribute_vectors(
    vae: VAE | AcceleratedVAE,
    images: PackedImages,
    names: Sequence[str],
    *,
    limit: int = 2000,
    seed: int = 0,
    progress: str | None = None,
) -> list[AttributeVector]:
    """The directions of some attributes, computed from training images. Each image is encoded once.

    Args:
        vae: encodes.
        images: a data set with attributes, of the VAE's image size.
        names: as `choose_attributes` takes them.
        limit: maximum number of images with an attribute, and of images without it.
        seed: of the choice of images.
        progress: as in `encode_images`.

    Raises:
        UsageError, FastvaeError: as `choose_attributes`.
        FastvaeError: no training image has an attribute, or all have it.
    """
    names = choose_attributes(images, names)
    random = np.random.Generator(np.random.PCG64(seed))
    order = random.permutation(images.indices("train"))
    chosen: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for name in names:
        has = images.attributes[order, images.attribute_names.index(name)] == 1
        chosen[name] = order[has][:limit], order[~has][:limit]
        if not all(map(len, chosen[name])):
            raise FastvaeError(f"every training image or none has the attribute {name}, so it has no direction")
    used = np.unique(np.concatenate([side for sides in chosen.values() for side in sides]))
    means = encode_images(vae, images.images, used, progress=progress)
    vectors = []
    for name, sides in chosen.items():
        plus, minus = (means[np.searchsorted(used, side)].mean(0, dtype=np.float64) for side in sides)
        vectors.append(AttributeVector(name, (plus - minus).astype(np.float32), *map(len, sides)))
    return vectors
