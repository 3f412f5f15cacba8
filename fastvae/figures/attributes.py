"""Images changed by adding the direction of an attribute (Fig. 12).

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
    """int64 [A]: for each attribute a held-out image without it, different ones as far as there are.

    Raises:
        FastvaeError: every held-out image has it.
    """
    held_out, taken = images.held_out(), []
    for name in names:
        lacking = held_out[images.attributes[held_out, images.attribute_names.index(name)] == 0]
        if not len(lacking):
            raise FastvaeError(f"every held-out image has the attribute {name}; give others with --images")
        fresh = np.setdiff1d(lacking, taken)
        taken.append(sample(fresh if len(fresh) else lacking, 1, seed, "held-out images")[0])
    return np.array(taken)


def manipulate(
    vae: VAE | AcceleratedVAE, originals: np.ndarray, directions: np.ndarray, strength: float = 1.0
) -> np.ndarray:
    """Decodes z + a strength direction.

    Args:
        vae: what encodes and decodes.
        originals: uint8 [N, H, W, 3].
        directions: float32 [N, latent], one for each image.
        strength: how often the direction is added at a = 1.

    Returns:
        uint8 [N, 11, H, W, 3], from a = 0, the reconstruction, to a = 1.
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
        images: with attributes, which the directions are taken from.
        names: of the attributes.
        given: uint8 [N, H, W, 3], every attribute is added to each of them; None for one held-out image without the
            attribute for each.
        strength: as in `manipulate`.
        limit: images with an attribute, and without it, that its direction is taken from.
        seed: of the choices.
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
    name = run.title
    return draw(panels, f"Adding attributes: {name}", caption)


def _label(vector: AttributeVector) -> Label:
    note = f"from {vector.with_it:,} images with it and {vector.without_it:,} without"
    return Label(vector.name.replace("_", " "), note)
