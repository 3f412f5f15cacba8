"""Which JPEGs are plain."""

import io

import pytest
from PIL import Image

from fastvae.data.decoders.plain_jpeg import plain_jpeg_size
from tests.data.pictures import photo


def encoded(picture=None, **options) -> bytes:
    file = io.BytesIO()
    (picture or photo(30, 40)).save(file, **{"format": "JPEG", **options})
    return file.getvalue()


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": "4:4:4"}, {"quality": 10}], ids=str)
def test_plain(options):
    assert plain_jpeg_size(encoded(**options)) == (30, 40)


def test_not_plain():
    exif = Image.Exif()
    exif[0x0112] = 6
    whole = encoded()
    others = {
        "turned": encoded(exif=exif),
        "cmyk": encoded(photo(30, 40).convert("CMYK")),
        "grey": encoded(photo(30, 40).convert("L")),
        "rgb": encoded(keep_rgb=True),
        "png": encoded(format="PNG"),
        "cut short": whole[:-2],
        "no frame": whole[: whole.index(b"\xff\xc0")] + b"\xff\xd9",
        "only ends": b"\xff\xd8\xff\xe0\xff\xd9",
        "empty": b"",
    }
    assert {name: plain_jpeg_size(data) for name, data in others.items()} == dict.fromkeys(others)
