"""Transparent pixels over white, beside what the PNG specification says of every colour type and bit depth."""

import io
import struct

import numpy as np
import pytest
from PIL import Image

from fastvae.data.decoders.pillow import decode_file
from tests.data.png import png

SIDE = 16
RANDOM = np.random.Generator(np.random.PCG64(0))


def decoded(file):
    image = decode_file(file, crop=None, size=SIDE)
    assert isinstance(image, np.ndarray), image
    return image


def values(depth, channels):
    """Integers [SIDE, SIDE, C], every one of which occurs if they are few."""
    return RANDOM.integers(0, 2**depth, (SIDE, SIDE, channels))


def as_8_bit(values, depth, high_byte=False):
    if depth == 16 and high_byte:
        return values // 256
    return np.floor(values * 255 / (2**depth - 1) + 0.5).astype(int)


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_one_grey_is_transparent(depth):
    grey = values(depth, 1)
    grey[1, 1], grey[1, 2] = 2**depth - 2, 0
    for colour in {0, 1, 2**depth - 2, 2**depth - 1, int(grey[3, 4, 0])}:
        expected = np.where(grey == colour, 255, as_8_bit(grey, depth)).repeat(3, 2)
        assert np.array_equal(decoded(png(grey, "grey", depth, transparent=struct.pack(">H", colour))), expected)


@pytest.mark.parametrize("depth", [8, 16])
def test_one_colour_is_transparent(depth):
    rgb = values(depth, 3)
    # Two that differ in the last bit of one channel alone.
    rgb[2, 3], rgb[2, 4] = (7, 8, 9), (7, 8, 10)
    for colour in ((7, 8, 9), (0, 0, 0), tuple(rgb[5, 5].tolist())):
        transparent = (rgb == colour).all(2, keepdims=True)
        expected = np.where(transparent, 255, as_8_bit(rgb, depth, high_byte=True))
        assert np.array_equal(decoded(png(rgb, "rgb", depth, transparent=struct.pack(">3H", *colour))), expected)


@pytest.mark.parametrize("colour", [256, 300, 65535])
def test_a_transparent_colour_that_cannot_occur(colour):
    grey, rgb = values(8, 1), values(8, 3)
    grey[0, 0], rgb[0, 0] = colour % 256, colour % 256
    assert np.array_equal(decoded(png(grey, "grey", 8, transparent=struct.pack(">H", colour))), grey.repeat(3, 2))
    rgb[0, 1] = 255
    assert np.array_equal(decoded(png(rgb, "rgb", 8, transparent=struct.pack(">3H", *[colour] * 3))), rgb)


@pytest.mark.parametrize("kind", ["grey+alpha", "rgb+alpha"])
@pytest.mark.parametrize("depth", [8, 16])
def test_alpha(kind, depth):
    channels = {"grey+alpha": 2, "rgb+alpha": 4}[kind]
    pixels = values(depth, channels)
    pixels[0, 0, -1], pixels[0, 1, -1] = 0, 2**depth - 1
    eight = as_8_bit(pixels, depth, high_byte=True)
    colour, alpha = eight[..., :-1], eight[..., -1:]
    expected = np.floor((colour * alpha + 255 * (255 - alpha)) / 255 + 0.5).astype(int)
    assert np.array_equal(decoded(png(pixels, kind, depth)), np.broadcast_to(expected, (SIDE, SIDE, 3)))


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_a_palette_whose_colours_are_partly_transparent(depth):
    indices = values(depth, 1)
    palette = RANDOM.integers(0, 256, (2**depth, 3))
    alpha = RANDOM.integers(0, 256, 2**depth)
    alpha[-1] = 255  # and is left out of the file, as it may be
    colour, a = palette[indices[..., 0]], alpha[indices]
    expected = np.floor((colour * a + 255 * (255 - a)) / 255 + 0.5)
    tables = {"palette": palette.astype(np.uint8).tobytes(), "transparent": alpha[:-1].astype(np.uint8).tobytes()}
    assert np.array_equal(decoded(png(indices, "palette", depth, **tables)), expected)


@pytest.mark.parametrize("depth", [8, 16])
def test_what_is_transparent_is_turned_with_the_picture(depth):
    grey = values(depth, 1)
    colour = int(grey[2, 9, 0])
    file = png(grey, "grey", depth, transparent=struct.pack(">H", colour))
    exif = Image.Exif()
    exif[0x0112] = 6  # show it turned by 90 degrees clockwise
    turned = io.BytesIO()
    with Image.open(file) as picture:
        picture.save(turned, "PNG", exif=exif, transparency=colour)
    expected = np.rot90(np.where(grey == colour, 255, as_8_bit(grey, depth)), -1).repeat(3, 2)
    assert np.array_equal(decoded(turned), expected)
