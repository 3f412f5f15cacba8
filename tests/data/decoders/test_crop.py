import pytest

from fastvae.data.decoders.crop import check_crop, crop_box
from fastvae.errors import FastvaeError, UsageError


@pytest.mark.parametrize(
    ("size", "crop", "box"),
    [
        ((178, 218), "auto", (30, 40, 168, 178)),
        ((64, 64), "auto", (0, 0, 64, 64)),
        ((100, 61), "auto", (19, 0, 80, 61)),
        ((61, 100), "center", (0, 19, 61, 80)),
        ((178, 218), "center", (0, 20, 178, 198)),
        ((200, 300), "celeba", (30, 40, 168, 178)),
        ((200, 300), None, (0, 0, 200, 300)),
        ((200, 300), (1, 2, 30, 40), (1, 2, 30, 40)),
        ((200, 300), (0, 0, 200, 300), (0, 0, 200, 300)),
    ],
)
def test_crop_box(size, crop, box):
    check_crop(crop)
    assert crop_box(*size, crop) == box


@pytest.mark.parametrize(
    ("size", "crop", "message"),
    [
        ((64, 64), "celeba", "does not fit into 64x64 pixels"),
        ((64, 64), (0, 0, 65, 64), "does not fit into 64x64 pixels"),
        ((1, 1), "auto", "too small: 1x1 pixels"),
        ((7, 300), "center", "too small: 7x300 pixels"),
        ((64, 64), (0, 0, 64, 4), "too small"),
    ],
)
def test_pictures_that_a_crop_does_not_suit(size, crop, message):
    with pytest.raises(FastvaeError, match=message):
        crop_box(*size, crop)


@pytest.mark.parametrize("crop", ["middle", (1, 2, 3), (0, 0, 0, 9), (5, 5, 4, 9), (-1, 0, 9, 9), (0.0, 0, 9, 9), 64])
def test_unknown_crops(crop):
    with pytest.raises(UsageError, match="crop must be"):
        check_crop(crop)
