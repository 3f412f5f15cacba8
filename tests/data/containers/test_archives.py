"""Zip and tar files: the same pictures, names, splits and classes as in a folder; nothing is unpacked."""

import shutil
import tarfile
import tracemalloc
import zipfile

import numpy as np
import pytest

from fastvae.data.containers.archives import container_kind, open_archive
from fastvae.data.dataset import open_images
from fastvae.data.decoders.encoded import BrokenImage
from fastvae.data.prepare import prepare
from fastvae.data.sources.detect import read_source
from fastvae.data.sources.report import summary
from fastvae.errors import FastvaeError
from tests.data.packs import write_members, write_tar, write_zip
from tests.data.pictures import save_photos

NAMES = [
    *(f"train/cat/{number}.jpg" for number in range(9)),
    *("train/dog/1.png", "train/dog/2.webp", "train/dog/3.bmp", "val/cat/1.jpg", "val/dog/1.jpg", "val/dog/ä ö.jpeg"),
]
WRITERS = {"zip": write_zip, "tar": write_tar}
kinds = pytest.mark.parametrize("kind", ["zip", "tar"])


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    save_photos(folder, NAMES)
    # A picture without a suffix, and what is left out.
    (folder / "train/cat/0.jpg").rename(folder / "train/cat/0")
    (folder / "train/cat/._1.jpg").write_bytes(b"junk of macOS")
    (folder / "__MACOSX").mkdir()
    (folder / "__MACOSX/1.jpg").write_bytes(b"junk of macOS")
    (folder / "notes.txt").write_text("no picture")
    (folder / "train/cat/9.gif").write_bytes(b"GIF89a")
    return folder


@kinds
@pytest.mark.parametrize("decoder", ["pillow", "dali"])
def test_a_container_is_read_as_its_folder(tmp_path, photos, kind, decoder):
    if decoder == "dali":
        pytest.importorskip("nvidia.dali")
    expected = prepare(photos, tmp_path / "folder.fvae", image_size=24, decoder="pillow", progress=False)
    WRITERS[kind](tmp_path / f"photos.{kind}", photos)
    packed = prepare(
        tmp_path / f"photos.{kind}", tmp_path / "packed.fvae", image_size=24, decoder=decoder, progress=False
    )
    assert np.array_equal(packed.images, expected.images)
    assert packed.names == expected.names and "val/dog/ä ö.jpeg" in packed.names
    assert np.array_equal(packed.splits, expected.splits) and set(packed.splits) == {0, 1}
    assert packed.attribute_names == expected.attribute_names == ("cat", "dog")
    assert np.array_equal(packed.attributes, expected.attributes)
    assert packed.header["source"] == f"photos.{kind}"
    left_out = [read_source(path).left_out for path in (photos, tmp_path / f"photos.{kind}")]
    assert left_out[1].keys() == left_out[0].keys() and "train/cat/9.gif" in str(left_out[1])


def test_a_folder_around_everything_is_no_class(tmp_path, photos):
    write_zip(tmp_path / "photos.zip", photos, prefix="faces v1.0/inner/")
    source = read_source(tmp_path / "photos.zip")
    assert source.attribute_names == ("cat", "dog") and source.names[0].startswith("faces v1.0/inner/train/cat/")


@kinds
def test_names_that_lead_elsewhere_are_read_and_write_nothing(tmp_path, kind):
    photo = _photo_bytes(tmp_path)
    names = ["/etc/a.jpg", "../../b.jpg", "c/../../../c.jpg", "./d.jpg"]
    file = tmp_path / f"evil.{kind}"
    if kind == "tar":
        write_members(file, [(name, photo) for name in names])
    else:
        with zipfile.ZipFile(file, "w") as archive:
            for name in names:
                archive.writestr(name, photo)
    before = sorted(tmp_path.rglob("*"))
    pictures = open_archive(file)
    assert pictures.names == ["b.jpg", "c/c.jpg", "d.jpg", "etc/a.jpg"]
    assert list(pictures) == [photo] * 4
    assert sorted(tmp_path.rglob("*")) == before


def test_a_name_that_repeats_is_its_last_member(tmp_path):
    write_members(tmp_path / "a.tar", [("x.jpg", b"first"), ("x.jpg", b"last")])
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("x.jpg", b"first")
        archive.writestr("x.jpg", b"last")
    for file in (tmp_path / "a.tar", tmp_path / "a.zip"):
        pictures = open_archive(file)
        assert pictures.names == ["x.jpg"] and list(pictures) == [b"last"]
        assert "repeated names" in str(pictures.left_out)


def test_backslashes_of_windows_are_folders(tmp_path):
    info = zipfile.ZipInfo("photos\\cat\\1.jpg")
    info.create_system = 0
    info.filename = "photos\\cat\\1.jpg"
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(info, b"x")
    assert open_archive(tmp_path / "a.zip").names == ["photos/cat/1.jpg"]


def test_hard_links_in_a_tar_file_are_pictures_and_symbolic_links_are_not(tmp_path, photos):
    (photos / "train/cat/linked.jpg").hardlink_to(photos / "train/cat/1.jpg")
    (photos / "train/cat/symbolic.jpg").symlink_to("1.jpg")
    write_tar(tmp_path / "a.tar", photos)
    pictures = open_archive(tmp_path / "a.tar")
    read = dict(zip(pictures.names, pictures, strict=True))
    assert read["train/cat/linked.jpg"] == read["train/cat/1.jpg"] == (photos / "train/cat/1.jpg").read_bytes()
    assert "train/cat/symbolic.jpg" not in read and "train/cat/symbolic.jpg" in str(pictures.left_out)


def test_a_broken_member_is_skipped_and_named(tmp_path, caplog):
    caplog.set_level("INFO", "fastvae")
    photo = _photo_bytes(tmp_path)
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_STORED) as archive:
        for number in range(200):
            archive.writestr(f"{number:03}.jpg", photo)
    data = bytearray((tmp_path / "a.zip").read_bytes())
    at = data.index(b"007.jpg") + 300
    data[at] ^= 255
    (tmp_path / "a.zip").write_bytes(data)
    packed = prepare(tmp_path / "a.zip", tmp_path / "a.fvae", image_size=16, progress=False)
    assert len(packed) == 199 and "007.jpg" not in packed.names
    assert packed.header["skipped"]["count"] == 1
    assert "skipped 007.jpg: damaged in the zip file (Bad CRC-32 for file '007.jpg')" in caplog.text


def test_a_broken_member_of_any_compression_is_a_broken_picture(tmp_path):
    pytest.importorskip("lzma")
    photo = _photo_bytes(tmp_path)
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_LZMA) as archive:
        for number in range(200):
            archive.writestr(f"{number:03}.jpg", photo)
    data = bytearray((tmp_path / "a.zip").read_bytes())
    at = data.index(b"007.jpg") + len(b"007.jpg") + 9  # behind LZMA's properties
    data[at : at + 40] = b"\xff" * 40
    (tmp_path / "a.zip").write_bytes(data)
    packed = prepare(tmp_path / "a.zip", tmp_path / "a.fvae", image_size=16, progress=False)
    assert len(packed) == 199 and "007.jpg" not in packed.names


def test_too_many_broken_members_are_an_error(tmp_path):
    write_members(tmp_path / "a.tar", [(f"{number}.jpg", b"no picture") for number in range(30)])
    with pytest.raises(FastvaeError, match=r"30 of 30 images are broken.*nothing was written"):
        prepare(tmp_path / "a.tar", tmp_path / "a.fvae", progress=False)
    assert not (tmp_path / "a.fvae").exists()


def test_an_encrypted_zip_file(tmp_path):
    write_zip(tmp_path / "a.zip", _folder(tmp_path))
    data = bytearray((tmp_path / "a.zip").read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "a.zip").write_bytes(data)
    with pytest.raises(FastvaeError, match=r"a.zip is encrypted \(1.jpg\); unpack it with its password"):
        read_source(tmp_path / "a.zip")


def test_a_zip_bomb_is_one_broken_picture(tmp_path):
    """600 MB of zeros in 0.6 MB, as one member; and a member that claims less than it would unpack to."""
    photo = _photo_bytes(tmp_path)
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("a.jpg", photo)
        with archive.open("b.jpg", "w") as member:
            for _ in range(300):
                member.write(bytes(1 << 20))
        archive.writestr("c.jpg", bytes(1 << 20))
    data = (tmp_path / "a.zip").read_bytes()
    claims = (1 << 20).to_bytes(4, "little")
    assert data.count(claims) == 2
    (tmp_path / "a.zip").write_bytes(data.replace(claims, (100).to_bytes(4, "little")))
    whole, bomb, liar = open_archive(tmp_path / "a.zip")
    assert whole == photo
    assert isinstance(bomb, BrokenImage) and "314,572,800 bytes when unpacked; the limit is" in bomb.reason
    assert isinstance(liar, BrokenImage)


@kinds
def test_truncated_and_damaged_files(tmp_path, photos, kind):
    WRITERS[kind](tmp_path / "whole", photos)
    data = (tmp_path / "whole").read_bytes()
    file = tmp_path / f"a.{kind}"
    for content in (data[: len(data) // 2], data[: len(data) // 2 + 77], b"", b"text", data[:300], bytes(700)):
        file.write_bytes(content)
        with pytest.raises(FastvaeError, match=rf"a\.{kind} (is (damaged|truncated)|contains no pictures)"):
            read_source(file)


def test_what_is_no_container_says_what_to_do(tmp_path, photos):
    write_tar(tmp_path / "a.tar", photos)
    for mode, what in (("gz", "gzip"), ("bz2", "bzip2"), ("xz", "xz")):
        with tarfile.open(tmp_path / f"a.tar.{mode}", f"w:{mode}") as archive:
            archive.add(photos, ".")
        with pytest.raises(FastvaeError, match=rf"a.tar.{mode} is compressed \({what}\).*unpack it"):
            read_source(tmp_path / f"a.tar.{mode}")
    (tmp_path / "a.7z").write_bytes(b"7z\xbc\xaf\x27\x1c" + bytes(100))
    with pytest.raises(FastvaeError, match=r"a.7z is a 7z archive, which is not read; unpack it"):
        read_source(tmp_path / "a.7z")
    with tarfile.open(tmp_path / "b.tar", "w:gz") as archive:
        archive.add(photos, ".")
    with pytest.raises(FastvaeError, match=r"b.tar is compressed \(gzip\)"):
        read_source(tmp_path / "b.tar")
    with zipfile.ZipFile(tmp_path / "empty.zip", "w") as archive:
        archive.writestr("readme.txt", "nothing")
    with pytest.raises(FastvaeError, match=r"empty.zip contains no pictures .*1 not pictures \(readme.txt\)"):
        read_source(tmp_path / "empty.zip")


def test_the_kind_of_a_file_is_its_first_bytes_or_suffix(tmp_path, photos):
    for kind, write in WRITERS.items():
        write(tmp_path / f"set.{kind}", photos)
        shutil.copy(tmp_path / f"set.{kind}", tmp_path / f"bare-{kind}")
        assert container_kind(tmp_path / f"bare-{kind}") == container_kind(tmp_path / f"set.{kind}") == kind
        assert len(read_source(tmp_path / f"bare-{kind}").names) == len(NAMES)
        renamed = tmp_path / f"{kind}.{'tar' if kind == 'zip' else 'zip'}"
        shutil.copy(tmp_path / f"set.{kind}", renamed)
        assert container_kind(renamed) == kind and len(read_source(renamed).names) == len(NAMES)
        assert f"read as pictures in a {kind} file" in summary(renamed, read_source(renamed))
        renamed.write_bytes(b"#!/bin/sh\n")
        assert container_kind(renamed) == renamed.suffix[1:]
    (tmp_path / "set.fvae").write_bytes(b"x" * 1000)
    assert container_kind(tmp_path / "set.fvae") is None


@pytest.mark.parametrize("name", ["set.tar", "set.zip", "set.parquet"])
def test_a_packed_file_is_one_whatever_it_is_called(tmp_path, photos, name):
    prepare(photos, tmp_path / name, image_size=16, progress=False)
    assert len(open_images(str(tmp_path / name), 16)) == len(NAMES)


@pytest.mark.parametrize("kind", WRITERS)
def test_a_file_that_changes_after_it_was_listed(tmp_path, photos, kind):
    """Before or while it is read; also into one with as many pictures, which have other labels."""
    file, other = tmp_path / f"a.{kind}", tmp_path / f"other.{kind}"
    WRITERS[kind](file, photos)
    WRITERS[kind](other, photos)
    source = read_source(file)
    assert len(list(source.images)) == len(NAMES)
    pictures = iter(source.images)
    next(pictures)
    other.replace(file)
    for reading in (pictures, source.images):
        with pytest.raises(FastvaeError, match=rf"a.{kind} has been changed meanwhile; start again"):
            list(reading)


def _folder(tmp_path):
    save_photos(tmp_path / "one", ["1.jpg"])
    return tmp_path / "one"


def _photo_bytes(tmp_path) -> bytes:
    return (_folder(tmp_path) / "1.jpg").read_bytes()


def test_memory_does_not_grow_with_the_container(tmp_path):
    """100 MB of pictures; with two threads about 40 MB wait to be decoded."""
    save_photos(tmp_path, ["large.bmp"], width=590, height=590)
    write_members(
        tmp_path / "a.tar", [(f"{number}.bmp", (tmp_path / "large.bmp").read_bytes()) for number in range(100)]
    )
    tracemalloc.start()
    try:
        packed = prepare(
            tmp_path / "a.tar", tmp_path / "a.fvae", image_size=8, decoder="pillow", workers=2, progress=False
        )
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(packed) == 100 and peak < 60e6
