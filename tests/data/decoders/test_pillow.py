import io

import numpy as np
import pytest
from PIL import Image

from fastvae.data.decoders.encoded import BrokenImage
from fastvae.data.decoders.pillow import decode, decode_file
from tests.data.pictures import photo, save_photos, spoil


def saved(picture, form, **options):
    file = io.BytesIO()
    picture.save(file, form, **options)
    file.seek(0)
    return file


def decoded(picture, form="PNG", *, crop=None, size=32, **options):
    return decode_file(saved(picture, form, **options), crop=crop, size=size)


def rgb(picture, size=32):
    return np.asarray(picture.convert("RGB").resize((size, size), Image.Resampling.BILINEAR))


def test_crop_then_resize():
    picture = photo()
    expected = np.asarray(picture.crop((30, 40, 168, 178)).resize((64, 64), Image.Resampling.BILINEAR))
    image = decoded(picture, crop="auto", size=64)
    assert image.dtype == np.uint8
    assert np.array_equal(image, expected)


def test_pixels_beyond_the_crop_have_no_influence():
    picture = photo()
    other = photo(seed=1)
    other.paste(picture.crop((30, 40, 168, 178)), (30, 40))
    assert np.array_equal(decoded(picture, crop="celeba"), decoded(other, crop="celeba"))


def test_a_picture_of_the_right_size_is_left_alone():
    picture = photo(32, 32)
    assert np.array_equal(decoded(picture, crop="auto"), np.asarray(picture))


@pytest.mark.parametrize(("mode", "form"), [("L", "PNG"), ("1", "PNG"), ("P", "PNG"), ("L", "JPEG"), ("CMYK", "JPEG")])
def test_colour_modes(mode, form):
    file = saved(photo().convert(mode), form)
    expected = rgb(Image.open(io.BytesIO(file.getvalue())))
    assert np.array_equal(decode_file(file, crop=None, size=32), expected)


def test_16_bit_grey_is_scaled_not_clipped():
    ramp = np.linspace(0, 65535, 32 * 32).reshape(32, 32).astype(np.uint16)
    image = decoded(Image.fromarray(ramp))
    assert np.abs(image - np.rint(ramp / 257)[..., None]).max() == 0


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparent_pixels_become_white(mode):
    picture = photo(32, 32)
    picture.putalpha(Image.new("L", (32, 32), 0))
    assert (decoded(picture.convert(mode)) == 255).all()


def test_transparent_colour_of_a_palette():
    assert (decoded(Image.new("P", (32, 32), 0), transparency=0) == 255).all()


def test_transparent_colour_of_an_rgb_png():
    picture = Image.new("RGB", (32, 32), (10, 20, 30))
    assert (decoded(picture, transparency=(10, 20, 30)) == 255).all()


def test_half_transparent():
    assert (decoded(Image.new("RGBA", (32, 32), (0, 0, 0, 128))) == 127).all()


def test_exif_orientation():
    upright = photo(64, 96)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show it rotated by 90 degrees clockwise
    lying = upright.transpose(Image.Transpose.ROTATE_90)
    assert np.array_equal(decoded(lying, crop="center", exif=exif), decoded(upright, crop="center"))


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_damaged_exif_data_are_no_damaged_picture(form):
    options = {"exif": b"Exif\0\0no TIFF header", "dpi": (72, 72)}
    assert np.array_equal(decoded(photo(), form, **options), decoded(photo(), form))
    see_through = Image.new("RGBA", (32, 32), (0, 0, 0, 128))
    if form != "JPEG":
        assert np.array_equal(decoded(see_through, form, **options), decoded(see_through, form))


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "BMP"])
def test_formats(form):
    assert np.abs(decoded(photo(), form).astype(int) - rgb(photo())).mean() < 5


def test_first_frame_of_an_animation():
    frames = [photo(32, 32, seed) for seed in range(3)]
    file = saved(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True)
    assert np.array_equal(decode_file(file, crop=None, size=32), np.asarray(frames[0]))


def test_other_formats_are_refused():
    assert decoded(photo(), "GIF") == BrokenImage("not a JPEG, PNG, WebP or BMP picture")


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("truncated", "truncated"),
        ("header only", "Truncated"),
        ("text", "not a JPEG, PNG, WebP or BMP picture"),
        ("empty", "not a JPEG, PNG, WebP or BMP picture"),
        ("1x1", "too small: 1x1 pixels"),
        ("missing", "No such file"),
    ],
)
def test_broken_files(tmp_path, kind, reason):
    image = decode_file(spoil(tmp_path)[kind], crop="auto", size=32)
    assert isinstance(image, BrokenImage)
    assert reason in image.reason


def test_damaged_png():
    data = bytearray(saved(photo(), "PNG").getvalue())
    data[len(data) // 2] ^= 255
    assert isinstance(decode_file(io.BytesIO(data), crop=None, size=32), BrokenImage)


def test_a_crop_that_does_not_fit():
    image = decoded(photo(64, 64), crop="celeba")
    assert image == BrokenImage("the crop (30, 40, 168, 178) does not fit into 64x64 pixels")


@pytest.mark.parametrize("workers", [1, 3])
def test_files_keep_their_order(tmp_path, workers):
    names = [f"{i:03}.png" for i in range(300)]
    save_photos(tmp_path, names, width=8, height=8)
    (tmp_path / names[40]).write_bytes(b"")
    images = list(decode([tmp_path / name for name in names], crop=None, size=8, workers=workers))
    assert len(images) == 300
    for seed, image in enumerate(images):
        if seed == 40:
            assert isinstance(image, BrokenImage)
        else:
            assert np.array_equal(image, np.asarray(photo(8, 8, seed)))


def test_no_files():
    assert list(decode([], crop=None, size=8, workers=2)) == []
