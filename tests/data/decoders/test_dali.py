import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fastvae.data.decoders import dali as decode_dali
from fastvae.data.decoders import pillow as decode_pillow
from fastvae.data.decoders.encoded import BrokenImage
from tests.data.pictures import photo, spoil

pytestmark = pytest.mark.skipif(not decode_dali.is_available(), reason="DALI is not installed")


@pytest.fixture
def dali_count(monkeypatch):
    """Counts the files that DALI itself decoded, so that a test cannot pass on Pillow's work alone."""
    counted = []
    original = decode_dali._CroppingDecoder.decode

    def decode(self, files):
        pieces = original(self, files)
        counted.append(sum(piece is not None for piece in pieces))
        return pieces

    monkeypatch.setattr(decode_dali._CroppingDecoder, "decode", decode)
    return lambda: sum(counted)


def test_of_large_files_for_pillow_only_the_path_is_held(tmp_path, monkeypatch):
    photo(64, 64).save(tmp_path / "a.png")
    assert decode_dali._read(tmp_path / "a.png", "auto") == ((tmp_path / "a.png").read_bytes(), None)
    monkeypatch.setattr(decode_dali, "_HELD_BYTES", 10)
    assert decode_dali._read(tmp_path / "a.png", "auto") == (tmp_path / "a.png", None)


def both(paths, *, crop="auto", size=64):
    for module in (decode_pillow, decode_dali):
        yield list(module.decode(paths, crop=crop, size=size, workers=2))


def assert_same(paths, **options):
    for path, one, other in zip(paths, *both(paths, **options), strict=True):
        assert type(one) is type(other), path
        if isinstance(one, np.ndarray):
            assert other.dtype == np.uint8
            assert np.array_equal(one, other), f"{path}: {np.abs(one.astype(int) - other).max()} levels apart"


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
@pytest.mark.parametrize("crop", ["auto", None, (31, 37, 160, 203)])
@pytest.mark.parametrize("size", [64, 160])
def test_the_same_pixels_as_pillow(tmp_path, dali_count, subsampling, crop, size):
    paths = [tmp_path / f"{seed}.jpg" for seed in range(12)]
    for seed, path in enumerate(paths):
        photo(seed=seed).save(path, quality=90, subsampling=subsampling, progressive=seed % 4 == 3)
    assert_same(paths, crop=crop, size=size)
    assert dali_count() == 12


def test_real_pictures(dali_count):
    folder = os.environ.get("FASTVAE_CELEBA_RAW")
    if not folder:
        pytest.skip("FASTVAE_CELEBA_RAW names no folder of 178x218 JPEGs")
    paths = sorted(Path(folder).glob("*.jpg"))[:1000]
    assert_same(paths)
    assert dali_count() == len(paths) > 0


def test_sizes_and_order(tmp_path, dali_count):
    random = np.random.Generator(np.random.PCG64(0))
    # More than one batch.
    paths = [tmp_path / f"{seed:03}.jpg" for seed in range(300)]
    for seed, path in enumerate(paths):
        photo(*random.integers(9, 60, 2), seed=seed).save(path)
    assert_same(paths, size=16)
    assert dali_count() == 300


def test_files_that_are_not_plain_go_through_pillow(tmp_path, dali_count):
    exif = Image.Exif()
    exif[0x0112] = 6
    photo().save(tmp_path / "turned.jpg", exif=exif)
    photo().convert("L").save(tmp_path / "grey.jpg")
    photo().convert("CMYK").save(tmp_path / "cmyk.jpg")
    photo().save(tmp_path / "rgb.jpg", keep_rgb=True)
    photo(600, 600).save(tmp_path / "large.jpg")
    photo().save(tmp_path / "named wrongly.jpg", "PNG")
    photo().save(tmp_path / "picture.webp")
    paths = sorted(tmp_path.iterdir())
    assert_same(paths)
    assert dali_count() == 0


def test_broken_files_are_named_and_stop_nothing(tmp_path, dali_count):
    broken = spoil(tmp_path / "broken")
    paths = list(broken.values())
    for seed in range(6):
        paths.insert(2 * seed, tmp_path / f"{seed}.jpg")
        photo(seed=seed).save(paths[2 * seed])
    small = tmp_path / "small.jpg"
    photo(4, 4).save(small)
    paths.append(small)
    expected, images = both(paths)
    assert [image for image in images if isinstance(image, BrokenImage)] == [
        image for image in expected if isinstance(image, BrokenImage)
    ]
    assert sum(isinstance(image, BrokenImage) for image in images) == len(broken) + 1
    assert dali_count() == 6
    assert_same(paths)


def test_what_dali_refuses_goes_through_pillow(tmp_path, dali_count):
    # Looks complete from outside, and its Huffman tables are gone.
    file = io.BytesIO()
    photo().save(file, "JPEG")
    start = file.getvalue().index(b"\xff\xc4")
    refused = tmp_path / "refused.jpg"
    refused.write_bytes(file.getvalue()[:start] + b"\xff\xda\x00\x02" + bytes(50) + b"\xff\xd9")
    paths = [refused]
    for seed in range(300):
        paths.append(tmp_path / f"{seed}.jpg")
        photo(32, 32, seed=seed).save(paths[-1])
    assert_same(paths, size=16)
    # The batch with the refused file is Pillow's, the next one is DALI's again.
    assert 0 < dali_count() < 300


def test_no_files():
    assert list(decode_dali.decode([], crop=None, size=8, workers=1)) == []
