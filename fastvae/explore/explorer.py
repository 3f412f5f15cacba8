"""Answers the page's requests. Stateless: the page keeps the latent vectors."""

import base64
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from fastvae.errors import FastvaeError
from fastvae.explore.requests import MAX_BYTES, MAX_STRENGTH, Refused, read_decode, read_seed, read_upload
from fastvae.inference.accelerated import AcceleratedVAE
from fastvae.inference.attribute_vectors import AttributeVector
from fastvae.pictures import finite_pixels
from fastvae.runs.draws import numbered_latents


class Explorer:
    """Answers requests with a VAE and its attribute vectors. Thread-safe.

    Args:
        vae: encodes and decodes.
        sliders: the attribute vector of each slider.
        name: of the model, human-readable.
        no_sliders: why there are no sliders, and what to do; empty if there are sliders.
    """

    def __init__(self, vae: AcceleratedVAE, sliders: Sequence[AttributeVector], name: str, no_sliders: str = ""):
        self._vae, self._sliders = vae, {slider.name: slider for slider in sliders}
        self._name, self._no_sliders = name, no_sliders

    def metadata(self) -> dict[str, Any]:
        """The model's metadata, from which the page is built."""
        vae = self._vae
        return {
            "name": self._name,
            "image_size": vae.image_size,
            "latent": vae.latent,
            "sliders": [{"name": s.name, "with": s.with_it, "without": s.without_it} for s in self._sliders.values()],
            "no_sliders": self._no_sliders,
            "max_strength": MAX_STRENGTH,
            "max_bytes": MAX_BYTES,
        }

    def encode(self, body: bytes) -> dict[str, Any]:
        """A picture file -> the mean of q(z|x), and the picture as the model sees it, as a PNG in a data URL.

        Raises:
            Refused: it cannot be read as a picture.
            FastvaeError: the model's mean is not finite.
        """
        image = read_upload(body, self._vae.image_size)
        mean, _ = self._vae.encode(image)
        if not torch.isfinite(mean).all():
            raise FastvaeError("the model encodes this picture as NaN or infinity: did its training diverge?")
        original = base64.b64encode(_png(image)).decode()
        return {"z": mean[0].tolist(), "original": f"data:image/png;base64,{original}"}

    def random(self, body: bytes) -> dict[str, Any]:
        """{"seed": s} -> z, a draw of N(0, I): the one of `fastvae generate --count 1 --seed s`.

        Raises:
            Refused: the seed is invalid.
        """
        return {"z": numbered_latents(read_seed(body), [0], self._vae.latent)[0].tolist()}

    def decode(self, body: bytes) -> bytes:
        """The JSON of `requests.read_decode` -> a PNG file.

        Raises:
            Refused: the JSON is invalid, or names an attribute without a slider.
        """
        wanted = read_decode(body, self._vae.latent)
        z = (1 - wanted.mix) * wanted.z + wanted.mix * wanted.second
        for name, strength in wanted.strengths.items():
            if name not in self._sliders:
                raise Refused(400, f"there is no slider {name[:50]!r}: reload the page")
            z = z + strength * self._sliders[name].direction
        return _png(finite_pixels(self._vae.decode(z[None].astype(np.float32)))[0])


def _png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="PNG")
    return file.getvalue()
