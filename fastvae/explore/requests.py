"""Parses the page's requests, which are untrusted bytes."""

import io
import json
import math
import threading
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from fastvae.data.decoders.encoded import BrokenImage
from fastvae.data.decoders.pillow import FORMATS, decode_file
from fastvae.errors import FastvaeError

MAX_BYTES = 20_000_000
# A photograph from a 50 megapixel camera. Decoded it takes 150 MB, and its copies as much again.
MAX_PIXELS = 50_000_000
MAX_STRENGTH = 2.0
_one_upload = threading.Lock()


class Refused(FastvaeError):
    """A rejected request, with its HTTP status."""

    def __init__(self, status: int, message: str):
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Decode:
    """A picture requested by the page, decoded from (1 - mix) z + mix second + the sum of strength * direction.

    Attributes:
        z: float32 [latent].
        strengths: by attribute, each in [-2, 2].
        second: float32 [latent]; z itself if the page has no second picture.
        mix: in [0, 1].
    """

    z: np.ndarray
    strengths: dict[str, float]
    second: np.ndarray
    mix: float


def read_decode(body: bytes, latent: int) -> Decode:
    """JSON {"z": [...], "strengths": {name: number}, "second": [...] or null, "mix": number}; all but z optional.

    Raises:
        Refused: it is invalid.
    """
    values = _object(body)
    strengths = values.get("strengths") or {}
    if not isinstance(strengths, dict):
        raise Refused(400, "strengths must be an object with a number for each attribute")
    z = _latent(values, "z", latent)
    return Decode(
        z=z,
        strengths={name: _number(strengths, name, -MAX_STRENGTH, MAX_STRENGTH) for name in strengths},
        second=z if values.get("second") is None else _latent(values, "second", latent),
        mix=_number(values, "mix", 0, 1) if "mix" in values else 0.0,
    )


def read_seed(body: bytes) -> int:
    """JSON {"seed": integer}, 0 to 2^53 - 1, the largest integer that JavaScript represents exactly.

    Raises:
        Refused: it is invalid.
    """
    seed = _object(body).get("seed")
    if type(seed) is not int or not 0 <= seed < 2**53:
        raise Refused(400, "the seed must be an integer, 0 or more")
    return seed


def read_upload(body: bytes, size: int) -> np.ndarray:
    """A picture file as uint8 [size, size, 3], cropped and resized as `prepare` does.

    Raises:
        Refused: it is not a picture, is damaged, or has too many pixels (checked before decoding).
    """
    # One at a time: several large ones together could exhaust the memory.
    with _one_upload:
        pixels = _pixels(body)
        if pixels > MAX_PIXELS:
            many = f"{pixels / 1e6:,.0f} million" if math.isfinite(pixels) else "far too many"
            raise Refused(400, f"the picture has {many} pixels; the limit is {MAX_PIXELS / 1e6:.0f} million")
        image = decode_file(io.BytesIO(body), crop="auto", size=size)
    if isinstance(image, BrokenImage):
        raise Refused(400, f"this file could not be read as a picture: {image.reason}")
    return image


def _pixels(body: bytes) -> float:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            with Image.open(io.BytesIO(body), formats=FORMATS) as picture:
                return picture.width * picture.height
        except Image.DecompressionBombError:
            return math.inf
        except Exception:  # damaged; `decode_file` reports how
            return 0


def _object(body: bytes) -> dict[str, Any]:
    try:
        values = json.loads(body)
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, dict):
        raise Refused(400, "expected a JSON object")
    return values


def _number(values: dict[str, Any], name: str, low: float, high: float) -> float:
    value = values[name]
    if type(value) not in (int, float) or not low <= value <= high:  # also false for NaN
        raise Refused(400, f"{name} must be a number from {low:g} to {high:g}")
    return float(value)


def _latent(request: dict[str, Any], name: str, latent: int) -> np.ndarray:
    values = request.get(name)
    if not isinstance(values, list) or any(type(value) not in (int, float) for value in values):
        raise Refused(400, f"{name} must be a list of {latent} numbers")
    if len(values) != latent:
        raise Refused(
            400, f"{name} has {len(values)} numbers and this model expects {latent}: was another model started? Reload"
        )
    largest = float(np.finfo(np.float32).max)
    if not all(-largest <= value <= largest for value in values):
        raise Refused(400, f"{name} must contain finite numbers")
    return np.array(values, np.float32)
