import errno
import hashlib
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from fastvae.data.packed import PackedImages, PackedWriter
from fastvae.data.packed_header import MAGIC
from fastvae.errors import FastvaeError, UsageError
from tests.data.layouts import names_in


def random_images(count, height=8, width=10, seed=0):
    return np.random.Generator(np.random.PCG64(seed)).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def write(path, count=7, **options):
    with PackedWriter(path, image_size=(8, 10), **options) as writer:
        writer.append(random_images(count), splits=np.arange(count) % 3)
    return path


@pytest.fixture
def file(tmp_path):
    return write(tmp_path / "set.fvae")


def test_round_trip(tmp_path):
    images = random_images(7)
    attributes = np.eye(7, 2, dtype=np.uint8)
    names = [f"{i}.jpg" for i in range(6)] + ["naïve/名\udcff.png"]  # the last byte is not UTF-8, as on some disks
    with PackedWriter(tmp_path / "set", image_size=(8, 10), attribute_names=("A", "B")) as writer:
        for part in (slice(0, 3), slice(3, 3), slice(3, 7)):
            writer.append(images[part], splits=np.full(7, 1)[part], attributes=attributes[part], names=names[part])
        writer.info["source"] = "a camera"
    packed = PackedImages.open(str(tmp_path / "set"))
    packed.verify()
    assert len(packed) == 7
    assert np.array_equal(packed.images, images)
    assert np.array_equal(packed.attributes, attributes)
    assert packed.attribute_names == ("A", "B")
    assert packed.splits.tolist() == [1] * 7
    assert packed.names == tuple(names)
    assert packed.header["source"] == "a camera"
    assert names_in(tmp_path) == ["set"]


def test_pixels_are_mapped_read_only_and_page_aligned(file):
    packed = PackedImages.open(file)
    assert isinstance(packed.images, np.memmap)
    assert packed.images.ctypes.data % os.sysconf("SC_PAGE_SIZE") == 0
    with pytest.raises(ValueError, match="read-only"):
        packed.images[0] = 0


def test_without_attributes_and_names(file):
    packed = PackedImages.open(file)
    assert packed.attributes is None
    assert packed.attribute_names == ()
    assert packed.names == ()


def test_same_input_gives_the_same_bytes(tmp_path):
    assert write(tmp_path / "a").read_bytes() == write(tmp_path / "b").read_bytes()


def test_splits(file):
    packed = PackedImages.open(file)
    assert packed.indices("train").tolist() == [0, 3, 6]
    assert packed.indices("validation").tolist() == [1, 4]
    assert packed.indices("test").tolist() == [2, 5]
    assert packed.held_out().tolist() == [1, 4]
    with pytest.raises(UsageError, match="unknown split 'val'; choose from train, validation, test"):
        packed.indices("val")


@pytest.mark.parametrize(("splits", "held_out"), [([0, 2, 2], [1, 2]), ([0, 0, 0], None)])
def test_held_out_without_validation(tmp_path, splits, held_out):
    with PackedWriter(tmp_path / "set", image_size=(8, 10)) as writer:
        writer.append(random_images(3), splits=np.array(splits))
    packed = PackedImages.open(tmp_path / "set")
    if held_out is not None:
        assert packed.held_out().tolist() == held_out
    else:
        with pytest.raises(FastvaeError, match="every image is in the train split"):
            packed.held_out()


def test_verify_finds_one_wrong_bit(file):
    with file.open("r+b") as data:
        data.seek(65536 + 100)
        byte = data.read(1)[0]
        data.seek(65536 + 100)
        data.write(bytes([byte ^ 1]))
    with pytest.raises(FastvaeError, match="the images block does not match its checksum"):
        PackedImages.open(file).verify()


def replace_header(file, change):
    data = bytearray(file.read_bytes())
    header = json.loads(data[16 : 16 + int.from_bytes(data[12:16], "little")])
    change(header)
    text = json.dumps(header).encode()
    data[12 : 16 + len(text)] = len(text).to_bytes(4, "little") + text
    file.write_bytes(data)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: f.unlink(), "does not exist; write one with `fastvae prepare`"),
        (lambda f: (f.unlink(), f.mkdir()), "is a folder, not a packed file"),
        (lambda f: f.write_bytes(b""), "is not a packed file: it begins with b''"),
        (lambda f: f.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(99)), "is not a packed file: it begins with b'.x89PNG"),
        (lambda f: f.write_bytes(MAGIC + b"\x63" + bytes(99)), "has format version 99; this fastvae reads 1"),
        (lambda f: f.write_bytes(f.read_bytes()[:100]), "the header is damaged or cut off"),
        (lambda f: f.write_bytes(f.read_bytes()[:-1]), "is truncated or damaged: .* copy it again"),
        (lambda f: f.write_bytes(f.read_bytes() + b"x"), "is truncated or damaged"),
        (lambda f: replace_header(f, lambda h: h.pop("blocks")), "the header is damaged"),
        (lambda f: replace_header(f, lambda h: h["blocks"]["splits"].update(shape=[6])), "the header is damaged"),
        (lambda f: replace_header(f, lambda h: h["blocks"]["images"].update(shape=[9999, 8, 10, 3])), "is damaged"),
        (lambda f: replace_header(f, lambda h: h["blocks"]["images"].update(offset="0")), "the header is damaged"),
        (lambda f: replace_header(f, lambda h: h.update(file_bytes=None)), "the header is damaged"),
        (lambda f: replace_header(f, lambda h: h.update(file_bytes=True)), "file_bytes must be an integer"),
        (lambda f: replace_header(f, lambda h: h.update(file_bytes=h["file_bytes"] + 0.0)), "must be an integer"),
        (lambda f: replace_header(f, lambda h: h.update(attribute_names=["A"])), r"attributes must be \[7, 1\]"),
        (lambda f: replace_header(f, lambda h: h.update(attribute_names=[1])), "must be a string"),
        (lambda f: replace_header(f, lambda h: h["blocks"].update(images=h["blocks"]["splits"])), "overlap"),
        (lambda f: replace_header(f, lambda h: h["blocks"]["images"].update(shape=[7, 80, 3, 1])), "images must be"),
        (lambda f: replace_header(f, lambda h: h["blocks"]["images"].update(shape=[-7, -8, 10, 3])), "the shape of"),
        (lambda f: replace_header(f, lambda h: h["blocks"]["images"].update(shape=[0, 8, 10, 3])), "the shape of"),
        (lambda f: replace_header(f, lambda h: h["blocks"]["images"].update(shape=[])), "the shape of"),
        (lambda f: replace_header(f, lambda h: h["blocks"]["images"].update(shape=[2**40, 8, 10, 3])), "outside the"),
        (lambda f: replace_header(f, lambda h: h["blocks"]["images"].update(offset=0)), "outside the file"),
        (lambda f: replace_header(f, lambda h: h["blocks"]["images"].update(offset=-(2**62))), "outside the file"),
        (lambda f: replace_header(f, lambda h: h["blocks"]["images"].update(sha256="a\nb")), "is not a SHA-256"),
        (lambda f: replace_header(f, lambda h: h["blocks"].pop("splits")), "lacks splits"),
        (lambda f: replace_header(f, lambda h: h["blocks"].update(splits=None)), "splits must be an object"),
    ],
)
def test_files_that_are_not_whole(file, damage, message):
    damage(file)
    with pytest.raises(FastvaeError, match=message) as caught:
        PackedImages.open(file)
    assert "\n" not in str(caught.value)


def test_what_is_no_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", "/dev/zero", tmp_path / ("x" * 300), "x" * 5000, tmp_path / "pipe/below"):
        with pytest.raises(FastvaeError) as caught:
            PackedImages.open(path)
        assert "\n" not in str(caught.value)


def test_what_a_later_version_has_added_is_left_alone(file):
    def add(header):
        header["depth_unit"] = "metres"
        header["blocks"]["splits"]["dtype"] = "uint8"
        header["blocks"]["depth"] = {"offset": 1, "parts": [{"codec": "zstd"}]}

    replace_header(file, add)
    packed = PackedImages.open(file)
    packed.verify()
    assert packed.unknown_blocks == ["depth"] and packed.header["depth_unit"] == "metres"
    assert np.array_equal(packed.images, random_images(7))


def damage(file, name, value):
    """Changes the first byte of a block, and its checksum with it if `value` is what it should be checked for."""
    header = PackedImages.open(file).header
    data = bytearray(file.read_bytes())
    block = header["blocks"][name]
    start, size = block["offset"], int(np.prod(block["shape"]))
    data[start] = value
    file.write_bytes(data)
    return hashlib.sha256(data[start : start + size]).hexdigest()


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [("splits", 3, "0 to 2; got 3"), ("attributes", 2, "0 to 1; got 2"), ("names", 0, "should have 3 names")],
)
def test_all_but_the_pixels_is_checked_at_opening(tmp_path, name, value, message):
    file = tmp_path / "set"
    with PackedWriter(file, image_size=8, attribute_names=("A",)) as writer:
        writer.append(random_images(3, 8, 8), splits=np.zeros(3), attributes=np.zeros((3, 1)), names=["a", "b", "c"])
    checksum = damage(file, name, value)
    with pytest.raises(FastvaeError, match=f"the {name} block does not match its checksum"):
        PackedImages.open(file)
    replace_header(file, lambda header: header["blocks"][name].update(sha256=checksum))
    with pytest.raises(FastvaeError, match=f"the {name} block is damaged .*{message}"):
        PackedImages.open(file)


def test_a_file_that_is_replaced_while_it_is_open_keeps_its_pixels(tmp_path):
    packed = PackedImages.open(write(tmp_path / "set"))
    with PackedWriter(tmp_path / "set", image_size=8, overwrite=True) as writer:
        writer.append(np.zeros((3, 8, 8, 3), np.uint8), splits=np.zeros(3))
    assert np.array_equal(packed.images, random_images(7))
    with pytest.raises(FastvaeError, match="does not match its checksum"):
        packed.verify()


def test_a_name_that_is_not_utf8(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = os.fsdecode(b"a\xfc\n.fvae")
    packed = PackedImages.open(write(name))
    assert packed.path == tmp_path / name
    with pytest.raises(FastvaeError, match=r"a\\xfc\\n.fvae exists"):
        write(name)


def test_a_home_folder_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write("~/set.fvae")
    assert len(PackedImages.open("~/set.fvae")) == 7 and names_in(tmp_path) == ["set.fvae"]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("there/set.fvae", "the folder .*there does not exist"),
        (".", "is a folder; give a file"),
        ("old.fvae", "exists; choose another name"),
        ("link", "exists; choose another name"),
    ],
)
def test_destinations(tmp_path, path, message):
    (tmp_path / "old.fvae").write_bytes(b"old")
    (tmp_path / "link").symlink_to("nowhere")
    with pytest.raises(FastvaeError, match=message):
        PackedWriter(tmp_path / path, image_size=8)
    assert (tmp_path / "old.fvae").read_bytes() == b"old"


def test_overwrite(tmp_path):
    (tmp_path / "old.fvae").write_bytes(b"old")
    assert len(PackedImages.open(write(tmp_path / "old.fvae", overwrite=True))) == 7


def test_only_files_are_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", "/dev/null"):
        with pytest.raises(FastvaeError, match="is a device or a pipe"):
            PackedWriter(path, image_size=8, overwrite=True)


def test_what_a_killed_writer_leaves_is_removed_by_the_next(tmp_path):
    killed = """
import os, signal, sys
import numpy as np
from fastvae.data.packed import PackedWriter
with PackedWriter(sys.argv[1], image_size=8) as writer:
    writer.append(np.zeros((1, 8, 8, 3), np.uint8), splits=np.zeros(1))
    os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", killed, tmp_path / "set.fvae"])
    assert len(names_in(tmp_path)) == 1
    write(tmp_path / "other.fvae")
    assert names_in(tmp_path) == ["other.fvae"]


@pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt])
def test_a_failure_leaves_nothing_and_keeps_the_old_file(tmp_path, failure):
    (tmp_path / "old.fvae").write_bytes(b"old")
    with pytest.raises(failure), PackedWriter(tmp_path / "old.fvae", image_size=8, overwrite=True) as writer:
        writer.append(random_images(3, 8, 8), splits=np.zeros(3))
        raise failure
    assert names_in(tmp_path) == ["old.fvae"]
    assert (tmp_path / "old.fvae").read_bytes() == b"old"


def test_no_images(tmp_path):
    with (
        pytest.raises(FastvaeError, match="there were no images to write"),
        PackedWriter(tmp_path / "set", image_size=8),
    ):
        pass
    assert names_in(tmp_path) == []


def test_too_long_header(tmp_path):
    names = [f"{i:01000}" for i in range(99)]
    with pytest.raises(FastvaeError, match="use fewer or shorter attribute names"):
        PackedWriter(tmp_path / "set", image_size=8, attribute_names=names)  # before a picture is decoded
    with (
        pytest.raises(FastvaeError, match="its header needs"),
        PackedWriter(tmp_path / "set", image_size=8) as writer,
    ):
        writer.append(random_images(3, 8, 8), splits=np.zeros(3))
        writer.info["note"] = "x" * 65536
    assert names_in(tmp_path) == []


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ({"images": random_images(2).astype(np.float32)}, r"images must be uint8 \[2, 8, 10, 3\]; got float32"),
        ({"images": random_images(2, 10, 8)}, r"images must be uint8 \[2, 8, 10, 3\]"),
        ({"splits": np.zeros(3)}, r"splits must be \[2\]"),
        ({"splits": np.array([0, 3])}, "splits must be .* values 0 to 2"),
        ({"attributes": None}, r"attributes must be \[2, 1\]"),
        ({"attributes": np.array([[-1], [1]])}, "attributes must be .* values 0 to 1"),
        ({"names": ["a"]}, "names must be given for all images or for none; got 1 for 2"),
    ],
)
def test_bad_batches(tmp_path, batch, message):
    good = {"images": random_images(2), "splits": np.zeros(2), "attributes": np.zeros((2, 1))}
    batch = {**good, **batch}
    with (
        pytest.raises(ValueError, match=message),
        PackedWriter(tmp_path / "set", image_size=(8, 10), attribute_names=("A",)) as writer,
    ):
        writer.append(batch.pop("images"), **batch)
    assert names_in(tmp_path) == []


def test_names_for_some_batches_only(tmp_path):
    with pytest.raises(ValueError, match="for all images or for none"), PackedWriter(tmp_path / "s", image_size=8) as w:
        w.append(random_images(1, 8, 8), splits=np.zeros(1))
        w.append(random_images(1, 8, 8), splits=np.zeros(1), names=["a"])


def write_much(path):
    with PackedWriter(path, image_size=256, overwrite=True) as writer:
        for _ in range(32):
            writer.append(np.zeros((1, 256, 256, 3), np.uint8), splits=np.zeros(1))


def test_full_disk(small_disk):
    (small_disk / "set.fvae").write_bytes(b"old")
    with pytest.raises(FastvaeError, match=r"set.fvae was not written: after [0-9]+ images the disk is full") as caught:
        write_much(small_disk / "set.fvae")
    assert "\n" not in str(caught.value)
    assert names_in(small_disk) == ["set.fvae"]
    assert (small_disk / "set.fvae").read_bytes() == b"old"


def test_limit_on_the_file_size(tmp_path):
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, hard))
    try:
        with pytest.raises(FastvaeError, match="raise `ulimit -f`"):
            write_much(tmp_path / "set.fvae")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert names_in(tmp_path) == []


@pytest.mark.parametrize(
    ("number", "message"), [(errno.EDQUOT, "the disk quota is exceeded"), (errno.EIO, "Input/output error")]
)
def test_disks_that_fail_late(tmp_path, monkeypatch, number, message):
    # Network file systems report at fsync that they had no room.
    def fail(_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(FastvaeError, match=message):
        write(tmp_path / "set.fvae")
    assert names_in(tmp_path) == []
