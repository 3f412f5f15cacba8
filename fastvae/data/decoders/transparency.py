"""Pixels of a PNG that have the file's transparent colour (tRNS).

Pillow returns that colour as stored in the file, but changes the pixels: it scales 2 and 4 bits to 8, and drops the low
bytes of 16-bit RGB. Compared directly, the wrong pixels would be transparent, or none.
"""

import numpy as np
from PIL import Image

# By Pillow's raw mode: the factor from a grey value in the file to one in the decoded picture.
_GREY_FACTORS = {"L;2": 85, "L;4": 17}


def opacity(picture: Image.Image) -> np.ndarray | None:
    """Where a picture is opaque; loads it.

    Args:
        picture: just opened, its pixels not yet loaded.

    Returns:
        uint8 [H, W], 0 or 255; None if the picture has no transparent colour, or another kind of transparency.
    """
    colour = picture.info.get("transparency")
    raw_mode = picture.tile[0][3] if picture.tile else None
    if picture.mode == "P" or not isinstance(colour, int | tuple):
        return None
    low_bytes = _low_bytes(picture) if raw_mode == "RGB;16B" else None
    pixels = np.asarray(picture)
    if low_bytes is not None:
        high, low = np.divmod(colour, 256)
        transparent = (pixels == high).all(2) & (low_bytes == low).all(2)
    elif picture.mode == "RGB":
        transparent = (pixels == colour).all(2)
    else:
        # For one bit, Pillow has already multiplied the colour, and NumPy returns booleans.
        values = pixels * 255 if picture.mode == "1" else pixels
        transparent = values == colour * _GREY_FACTORS.get(raw_mode, 1)
    return np.where(transparent, 0, 255).astype(np.uint8)


def _low_bytes(picture: Image.Image) -> np.ndarray:
    """uint8 [H, W, 3]: the bytes of 16-bit RGB that Pillow drops."""
    place = picture.fp.tell()
    picture.fp.seek(0)
    with Image.open(picture.fp, formats=("PNG",)) as again:
        # Read as little-endian: Pillow then keeps the second byte, which is the low one.
        again.tile = [(*tile[:3], "RGB;16L") for tile in again.tile]
        low = np.array(again)
    picture.fp.seek(place)
    return low
