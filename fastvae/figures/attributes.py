"""Images changed by adding an attribute's direction in latent space (Fig. 12).

z + a z_attribute, a = 0, 0.1, ..., 1

Source: Hou et al., section 4.3.2.
"""

from collections.abc import Sequence

import numpy as np

from fastvae.data.packed import PackedImages
from fastvae.errors import FastvaeError
from fastvae.figures.interpolation import STEPS, decode_rows
from fastvae.figures.originals import sample
from fastvae.figures.sheet import Label, Panel, draw
from fastvae.inference.accelerated import AcceleratedVAE
from fastvae.inference.attribute_vectors import AttributeVector, attribute_vectors
from fastvae.inference.encode_images import encode_images
from fastvae.models import VAE
from fastvae.runs.open import Run


def images_without(images: PackedImages, names: Sequence[str], seed: int) -> np.ndarray:
    """int64 [A]: for each attribute the index of a held-out image without it; different images if possible.

    Raises:
        FastvaeError: every held-out image has the attribute.
    """
    held_out, chosen = images.held_out(), []
    for name in names:
        candidates = held_out[images.attributes[held_out, images.attribute_names.index(name)] == 0]
        if not len(candidates):
            raise FastvaeError(f"every held-out image has the attribute {name}; give others with --images")
        unused = np.setdiff1d(candidates, chosen)
        chosen.append(sample(unused if len(unused) else candidates, 1, seed, "held-out images")[0])
    return np.array(chosen)


def manipulate(
    vae: VAE | AcceleratedVAE, originals: np.ndarray, directions: np.ndarray, strength: float = 1.0
) -> np.ndarray:
    """Decodes z + a strength direction.

    Args:
        vae: encodes and decodes.
        originals: uint8 [N, H, W, 3].
        directions: float32 [N, latent], one for each image.
        strength: factor of the direction.

    Returns:
        uint8 [N, 11, H, W, 3], from a = 0 (the reconstruction) to a = 1.
    """
    z = encode_images(vae, originals)[:, None]
    return decode_rows(vae, z + strength * STEPS[:, None] * directions[:, None])


def figure(
    run: Run,
    images: PackedImages,
    names: Sequence[str],
    given: np.ndarray | None,
    *,
    strength: float,
    limit: int,
    seed: int,
) -> np.ndarray:
    """A sheet with a row for each attribute and image.

    Args:
        run: whose VAE encodes and decodes.
        images: a data set with attributes, which the directions are computed from.
        names: of the attributes.
        given: uint8 [N, H, W, 3], to each of which every attribute is added; None for one held-out image per attribute
            that does not have it.
        strength: as in `manipulate`.
        limit: how many images with an attribute, and as many without it, its direction is computed from.
        seed: of the choices of images.
    """
    originals = (
        images.images[images_without(images, names, seed)] if given is None else np.tile(given, (len(names), 1, 1, 1))
    )
    vae = run.model.accelerate()
    vectors = attribute_vectors(vae, images, names, limit=limit, seed=seed, progress="encoding")
    rows = [vector for vector in vectors for _ in range(len(originals) // len(names))]
    steps = [f"a = {a:.1f}" if 0 < a < 1 else f"a = {a:.0f}" for a in STEPS]
    panels = [
        Panel(originals[:, None], rows=[_label(vector) for vector in rows], columns=["original"]),
        Panel(manipulate(vae, originals, np.stack([v.direction for v in rows]), strength), columns=steps),
    ]
    factor = "" if strength == 1 else f" {strength:g}"
    caption = (
        f"Each row decodes z + a{factor} z_attribute, where z is the mean of q(z|x) of the original and z_attribute "
        "the mean z of training images with the attribute minus that of images without it. Originals: "
        + (f"held-out images without the attribute, seed {seed}." if given is None else "given files.")
    )
    return draw(panels, f"Adding attributes: {run.title}", caption)


def _label(vector: AttributeVector) -> Label:
    note = f"from {vector.with_it:,} images with it and {vector.without_it:,} without"
    return Label(vector.name.replace("_", " "), note)
