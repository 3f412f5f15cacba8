"""What the page's requests compute. It keeps no state: latent vectors live in the page."""

import base64
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from fastvae.explore.requests import MOST_BYTES, STRONGEST, Refused, read_decode, read_seed, read_upload
from fastvae.inference.accelerated import AcceleratedVAE
from fastvae.inference.attribute_vectors import AttributeVector
from fastvae.pictures import finite_pixels


class Explorer:
    """A VAE and its attribute vectors behind four answers; may be called from several threads.

    Args:
        vae: what encodes and decodes.
        sliders: a slider each.
        name: of the model, for people.
        no_sliders: why there are none, and what to do; empty if there are.
    """

    def __init__(self, vae: AcceleratedVAE, sliders: Sequence[AttributeVector], name: str, no_sliders: str = ""):
        self._vae, self._sliders = vae, {slider.name: slider for slider in sliders}
        self._name, self._no_sliders = name, no_sliders

    def about(self) -> dict[str, Any]:
        """What the page is built from."""
        vae = self._vae
        return {
            "name": self._name,
            "image_size": vae.image_size,
            "latent": vae.latent,
            "sliders": [{"name": s.name, "with": s.with_it, "without": s.without_it} for s in self._sliders.values()],
            "no_sliders": self._no_sliders,
            "strongest": STRONGEST,
            "most_bytes": MOST_BYTES,
        }

    def encode(self, body: bytes) -> dict[str, Any]:
        """A picture file -> the mean of q(z|x), and the picture as the model sees it, as a PNG in a data URL.

        Raises:
            Refused: it is no picture that can be read.
        """
        image = read_upload(body, self._vae.image_size)
        mean, _ = self._vae.encode(image)
        original = base64.b64encode(_png(image)).decode()
        return {"z": mean[0].tolist(), "original": f"data:image/png;base64,{original}"}

    def random(self, body: bytes) -> dict[str, Any]:
        """{"seed": s} -> z, a draw of N(0, I): the one of `fastvae generate --count 1 --seed s`.

        Raises:
            Refused: the seed is none.
        """
        generator = torch.Generator().manual_seed(read_seed(body))
        return {"z": torch.randn(1, self._vae.latent, generator=generator)[0].tolist()}

    def decode(self, body: bytes) -> bytes:
        """What `requests.Decode` describes -> PNG.

        Raises:
            Refused: it is something else, or names an attribute without a slider.
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
