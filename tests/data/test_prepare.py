import logging
import os
import shutil
import signal
import subprocess
import sys
from collections import namedtuple

import numpy as np
import pytest
from PIL import Image

from fastvae.data import prepare as prepare_module
from fastvae.data.decoders import dali as decode_dali
from fastvae.data.prepare import prepare
from fastvae.data.sources.cifar10 import CLASSES
from fastvae.errors import FastvaeError, UsageError
from tests.data.layouts import CIFAR_PIXELS, names_in, write_celeba_lists, write_cifar_binary, write_cifar_folders
from tests.data.pictures import photo, save_photos, spoil

pytestmark = pytest.mark.usefixtures("signals_of_a_terminal")


def run(source, out, **options):
    return prepare(source, out, **{"decoder": "pillow", "progress": False, "workers": 2, **options})


@pytest.fixture
def folder(tmp_path):
    """40 photos, 24x24."""
    save_photos(tmp_path / "photos", [f"{i:02}.png" for i in range(40)], width=24, height=24)
    return tmp_path / "photos"


def test_folder(folder, tmp_path):
    packed = run(folder, tmp_path / "out", image_size=24)
    packed.verify()
    assert packed.images.shape == (40, 24, 24, 3)
    assert all(np.array_equal(packed.images[i], np.asarray(photo(24, 24, i))) for i in range(40))
    assert packed.indices("validation").tolist() == [19, 39]
    assert packed.names[0] == "00.png"
    header = packed.header
    assert (header["kind"], header["source"], header["crop"]) == ("folder", "photos", "auto")
    assert header["resize"] == "bilinear, antialiased, to 24x24"
    assert header["decoder"].startswith("pillow ")
    assert "every 20th" in header["split_rule"]
    assert header["skipped"] == {"count": 0, "first": []}


def test_the_file_does_not_tell_where_it_was_made(folder, tmp_path):
    run(folder, tmp_path / "out")
    assert os.fsencode(tmp_path) not in (tmp_path / "out").read_bytes()


def test_celeba(tmp_path):
    folder = tmp_path / "img_align_celeba"
    folder.mkdir()
    for number in (1, 2, 3):
        photo(seed=number).save(folder / f"{number:06}.jpg", quality=95)
    write_celeba_lists(tmp_path)
    packed = run(tmp_path, tmp_path / "out.fvae")
    assert packed.images.shape == (3, 64, 64, 3)
    assert packed.attribute_names == ("Bald", "Smiling")
    assert packed.attributes.tolist() == [[0, 1], [1, 0], [0, 0]]
    assert packed.splits.tolist() == [0, 1, 2]
    with Image.open(folder / "000002.jpg") as picture:
        expected = picture.crop((30, 40, 168, 178)).resize((64, 64), Image.Resampling.BILINEAR)
    assert np.array_equal(packed.images[1], np.asarray(expected))


@pytest.mark.parametrize(("write", "count"), [(write_cifar_binary, 18), (write_cifar_folders, 30)])
@pytest.mark.parametrize("image_size", [None, 64])
def test_cifar10(tmp_path, write, count, image_size):
    write(tmp_path / "cifar")
    packed = run(tmp_path / "cifar", tmp_path / "out", image_size=image_size)
    size = image_size or 32
    assert packed.images.shape == (count, size, size, 3)
    assert packed.attribute_names == CLASSES
    assert packed.held_out().tolist() == packed.indices("test").tolist() != []
    if write is write_cifar_binary and size == 32:
        assert np.array_equal(packed.images, CIFAR_PIXELS.reshape(-1, 32, 32, 3))


def test_one_percent_broken_is_skipped_and_named(tmp_path, caplog):
    names = [f"{i:03}.png" for i in range(200)]
    save_photos(tmp_path / "photos", names, width=8, height=8)
    for broken in ("000.png", "123.png"):
        (tmp_path / "photos" / broken).write_bytes(b"text")
    with caplog.at_level(logging.INFO, "fastvae"):
        packed = run(tmp_path / "photos", tmp_path / "out", image_size=8)
    reason = "not a JPEG, PNG, WebP or BMP picture"
    assert packed.header["skipped"] == {"count": 2, "first": [f"000.png: {reason}", f"123.png: {reason}"]}
    assert [record.getMessage() for record in caplog.records][1:] == [
        f"skipped 000.png: {reason}",
        f"skipped 123.png: {reason}",
        f"{tmp_path / 'out'}: 198 images (188 train, 10 validation, 0 test), 2 skipped",
    ]
    # Pixels, names and splits stay together.
    assert packed.names == tuple(name for name in names if name not in ("000.png", "123.png"))
    assert np.array_equal(packed.images[150], np.asarray(photo(8, 8, int(packed.names[150][:3]))))
    assert [packed.names[i] for i in packed.indices("validation")] == names[19::20]


def test_more_than_one_percent_broken(tmp_path):
    spoil(tmp_path / "photos")
    save_photos(tmp_path / "photos", [f"{i}.png" for i in range(20)])
    with pytest.raises(FastvaeError) as caught:
        run(tmp_path / "photos", tmp_path / "out")
    message = str(caught.value)
    assert message.startswith("at least 5 of 25 images are broken, and the limit is 0 (1 %): nothing was written.")
    assert all(name in message for name in ("1x1.png: too small", "empty.jpg", "text.jpg", "truncated.jpg: image file"))
    assert "\n" not in message
    assert names_in(tmp_path) == ["photos"]


def test_too_many_broken_stop_early_and_ten_are_listed(tmp_path, monkeypatch):
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(5000):
        (folder / f"{number:04}.jpg").touch()
    opened = []
    original = prepare_module.decode_pillow.decode_file
    monkeypatch.setattr(
        prepare_module.decode_pillow, "decode_file", lambda path, **o: (opened.append(path), original(path, **o))[1]
    )
    with pytest.raises(FastvaeError, match=r"First: 0000.jpg: .*; 0009.jpg: [^;]*$"):
        run(folder, tmp_path / "out")
    assert len(opened) < 2500


def test_a_crop_that_fits_no_picture(folder, tmp_path):
    with pytest.raises(FastvaeError, match=r"the crop \(30, 40, 168, 178\) does not fit into 24x24 pixels"):
        run(folder, tmp_path / "out", crop="celeba")


def test_crop_is_recorded(folder, tmp_path):
    packed = run(folder, tmp_path / "out", crop=(2, 3, 18, 19), image_size=16)
    assert packed.header["crop"] == [2, 3, 18, 19]
    assert np.array_equal(packed.images[7], np.asarray(photo(24, 24, 7))[3:19, 2:18])


@pytest.mark.skipif(not decode_dali.is_available(), reason="DALI is not installed")
def test_dali_writes_the_same_file_but_for_the_name_of_the_decoder(tmp_path):
    (tmp_path / "photos").mkdir()
    for seed in range(30):
        photo(seed=seed).save(tmp_path / f"photos/{seed:02}.jpg")
    by_pillow = run(tmp_path / "photos", tmp_path / "one")
    by_dali = run(tmp_path / "photos", tmp_path / "two", decoder="dali")
    by_auto = run(tmp_path / "photos", tmp_path / "three", decoder="auto")
    assert np.array_equal(by_pillow.images, by_dali.images)
    assert by_dali.header["decoder"].startswith("dali ")
    assert by_dali.header.pop("decoder") == by_auto.header.pop("decoder") != by_pillow.header.pop("decoder")
    assert by_dali.header["blocks"] == by_pillow.header["blocks"]


def test_without_dali(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(decode_dali, "is_available", lambda: False)
    assert run(folder, tmp_path / "out", decoder="auto").header["decoder"].startswith("pillow ")
    with pytest.raises(FastvaeError, match=r"DALI cannot be imported; run `pip install -e '\.\[dali\]'`"):
        run(folder, tmp_path / "other", decoder="dali")


def test_dali_is_imported_only_when_it_is_used():
    code = "import sys, fastvae.data.prepare; sys.exit('nvidia.dali' in sys.modules or 'torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_an_existing_file_is_kept_unless_it_may_be_replaced(folder, tmp_path):
    (tmp_path / "out").write_bytes(b"old")
    with pytest.raises(FastvaeError, match="out exists; choose another name"):
        run(folder, tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == b"old"
    assert len(run(folder, tmp_path / "out", overwrite=True)) == 40


def test_no_room_is_found_out_before_the_work(folder, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(prepare_module.shutil, "disk_usage", lambda _: usage(10**6, 0, 10**5))
    with pytest.raises(FastvaeError, match=r"needs 0.5 MB and the disk has 0.1 MB free"):
        run(folder, tmp_path / "out")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "folders"}, "unknown kind .*, did you mean 'folder'"),
        ({"decoder": "opencv"}, "unknown decoder 'opencv'; choose from auto, pillow, dali"),
        ({"image_size": 4}, "image_size must be 8 to 1024 pixels; got 4"),
        ({"image_size": 0}, "image_size must be 8 to 1024 pixels; got 0"),
        ({"image_size": 4096}, "image_size must be 8 to 1024 pixels; got 4096"),
        ({"crop": "left"}, "crop must be"),
        ({"workers": 0}, "workers must be from 1 to 1024; got 0"),
        ({"kind": "folder", "annotations": "/"}, "--annotations is for CelebA"),
    ],
)
def test_bad_arguments(folder, tmp_path, options, message):
    with pytest.raises(UsageError, match=message):
        run(folder, tmp_path / "out", **options)


@pytest.mark.parametrize(
    ("source", "out", "message"),
    [
        ("missing", "out", "missing does not exist; give the folder"),
        ("empty", "out", "contains no pictures"),
        ("photos/00.png", "out", "neither a folder of images nor"),
        ("photos", "nowhere/out", "the folder .*nowhere does not exist"),
        ("photos", "empty", "is a folder; give a file"),
    ],
)
def test_bad_paths(folder, tmp_path, source, out, message):
    (tmp_path / "empty").mkdir()
    with pytest.raises(FastvaeError, match=message):
        run(tmp_path / source, tmp_path / out)


SIGNALLED = """
import os, signal, sys
from fastvae.data.decoders import pillow as decode_pillow
from fastvae.data.prepare import prepare

def unwind(number, frame):
    raise SystemExit(100 + number)

signal.signal(signal.SIGTERM, unwind)
original, count = decode_pillow.crop_and_resize, 0

def counting(*arguments, **options):
    global count
    count += 1
    if count == 1500:
        assert [name for name in os.listdir(os.path.dirname(sys.argv[2])) if name.startswith(".fastvae-")]
        os.kill(os.getpid(), signal.SIGTERM)
    return original(*arguments, **options)

decode_pillow.crop_and_resize = counting
prepare(sys.argv[1], sys.argv[2], image_size=8, decoder=sys.argv[3], workers=2)
"""


@pytest.mark.parametrize("decoder", ["pillow", "dali"])
def test_a_signal_that_unwinds_leaves_nothing(tmp_path, decoder):
    if decoder == "dali" and not decode_dali.is_available():
        pytest.skip("DALI is not installed")
    (tmp_path / "photos").mkdir()
    photo(16, 16).save(tmp_path / "photos/0000.jpg")
    for number in range(1, 3000):
        (tmp_path / f"photos/{number:04}.jpg").hardlink_to(tmp_path / "photos/0000.jpg")
    (tmp_path / "out").mkdir()
    command = [sys.executable, "-c", SIGNALLED, tmp_path / "photos", tmp_path / "out/set.fvae", decoder]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 100 + signal.SIGTERM, done.stderr
    assert names_in(tmp_path / "out") == []


@pytest.mark.parametrize("decoder", ["pillow", "dali"])
def test_what_is_no_picture_any_more_is_broken_and_not_waited_for(tmp_path, decoder, monkeypatch):
    """Between listing and decoding, files become pipes, folders and devices."""
    if decoder == "dali" and not decode_dali.is_available():
        pytest.skip("DALI is not installed")
    save_photos(tmp_path / "photos", [f"{i:03}.jpg" for i in range(300)], width=16, height=16)
    read = prepare_module.read_source

    def read_and_replace(*arguments, **options):
        source = read(*arguments, **options)
        for path in source.images[:3]:
            path.unlink()
        os.mkfifo(source.images[0])
        source.images[1].mkdir()
        source.images[2].symlink_to("/dev/zero")
        return source

    monkeypatch.setattr(prepare_module, "read_source", read_and_replace)
    packed = run(tmp_path / "photos", tmp_path / "out", decoder=decoder, image_size=16)
    assert packed.header["skipped"]["count"] == 3 and len(packed) == 297
    assert all("not a regular file" in line for line in packed.header["skipped"]["first"])


def test_a_picture_is_never_replaced_by_the_file(folder, tmp_path):
    before = (folder / "07.png").read_bytes()
    (tmp_path / "link").symlink_to(folder / "07.png")
    for out in (folder / "07.png", tmp_path / "link"):
        with pytest.raises(FastvaeError, match="is one of the input files"):
            run(folder, out, overwrite=True)
    assert (folder / "07.png").read_bytes() == before


def test_cifars_own_files_are_never_replaced(tmp_path):
    write_cifar_binary(tmp_path / "cifar")
    kept = {path: path.read_bytes() for path in (tmp_path / "cifar").rglob("*") if path.is_file()}
    for path in kept:
        with pytest.raises(FastvaeError, match="is one of the input files"):
            run(tmp_path / "cifar", path, overwrite=True)
    assert all(path.read_bytes() == content for path, content in kept.items())
    out = tmp_path / "cifar" / "set.fvae"
    assert len(run(tmp_path / "cifar", out)) == len(run(tmp_path / "cifar", out, overwrite=True)) == 18


def test_into_the_folder_itself(folder):
    assert len(run(folder, folder / "set.fvae")) == len(run(folder, folder / "set.fvae", overwrite=True)) == 40


def test_names_that_are_not_utf8(tmp_path, caplog):
    source, out = tmp_path / os.fsdecode(b"bilder-\xfc"), tmp_path / os.fsdecode(b"out-\xfc\n.fvae")
    names = [os.fsdecode(b"%03d-\xe9\n.png" % number) for number in range(100)]
    save_photos(source, names, width=8, height=8)
    (source / names[3]).write_bytes(b"no picture")
    packed = run(source, out, image_size=8)
    assert packed.path == out and packed.names == tuple(name for name in names if name != names[3])
    assert all(record.getMessage().isprintable() for record in caplog.records)
    assert all(line.isprintable() for line in packed.header["skipped"]["first"])
    for name in names[4:8]:
        (source / name).write_bytes(b"no picture")
    with pytest.raises(FastvaeError, match="at least 5 of 100 images are broken") as error:
        run(source, out, overwrite=True, image_size=8)
    assert str(error.value).isprintable()


def test_paths_are_expanded(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert run("~/photos", "~/set.fvae").path == tmp_path / "set.fvae"


def test_progress_goes_to_stderr(folder, tmp_path, capsys):
    run(folder, tmp_path / "out", progress=True)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "prepare: 40 of 40 images" in captured.err


def test_celeba_in_a_zip_file_gives_the_same_images_as_unpacked(tmp_path):
    folder = tmp_path / "img_align_celeba"
    folder.mkdir()
    for number in (1, 2, 3):
        photo(seed=number).save(folder / f"{number:06}.jpg", quality=95)
    write_celeba_lists(tmp_path)
    unpacked = run(folder, tmp_path / "one.fvae")
    shutil.make_archive(str(tmp_path / "zip/img_align_celeba"), "zip", tmp_path, folder.name)
    packed = run(tmp_path / "zip", tmp_path / "two.fvae")
    for name in ("images", "attributes", "splits"):
        assert np.array_equal(getattr(packed, name), getattr(unpacked, name))
    assert packed.header["kind"] == "celeba" and packed.names == tuple(f"img_align_celeba/{n}" for n in unpacked.names)


def test_only_the_first_broken_pictures_are_logged(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(prepare_module, "NAMED", 1)
    save_photos(tmp_path / "photos", [f"{i:03}.png" for i in range(300)], width=8, height=8)
    for number in range(3):
        (tmp_path / f"photos/{number:03}.png").write_bytes(b"text")
    run(tmp_path / "photos", tmp_path / "out", image_size=8)
    reason = "not a JPEG, PNG, WebP or BMP picture"
    said = [record.getMessage() for record in caplog.records]
    assert said == [f"skipped 000.png: {reason}", "skipped 2 more that cannot be decoded"]
