"""Damaged and hostile data sets: every one works or is one FastvaeError of one line, in bounded time and memory."""

import gzip
import io
import json
import pickle
import tracemalloc
import zipfile
from random import Random

import numpy as np
import pytest
from PIL import Image

from fastvae.data.decoders import pillow as decode_pillow
from fastvae.data.packed import PackedImages, PackedWriter
from fastvae.data.sources.celeba import read_celeba
from fastvae.data.sources.cifar10 import read_cifar10
from fastvae.errors import FastvaeError
from tests.data.layouts import (
    CELEBA_ATTRIBUTES,
    CELEBA_ATTRIBUTES_CSV,
    CELEBA_SPLITS,
    CELEBA_SPLITS_CSV,
    packed_tar,
    touch_celeba_pictures,
    write_cifar_binary,
    write_cifar_pickles,
    write_cifar_pngs,
)
from tests.data.pickles import python2_pickle
from tests.data.pictures import photo
from tests.mutations import mutated_bytes, mutated_json

COUNT = 300
MEMORY = 64 << 20


def outcomes(read, write, count=COUNT) -> tuple[int, int]:
    """Reads `count` mutations; how many worked and how many were refused.

    Args:
        read: what is to be tested.
        write: takes a generator of random numbers and puts one mutation where it is read.
    """
    worked = refused = 0
    tracemalloc.start()
    try:
        for seed in range(count):
            write(Random(seed))
            try:
                read()
                worked += 1
            except FastvaeError as error:
                assert "\n" not in str(error) and len(str(error)) < 1000, seed
                refused += 1
        assert tracemalloc.get_traced_memory()[1] < MEMORY
    finally:
        tracemalloc.stop()
    return worked, refused


@pytest.fixture
def packed_bytes(tmp_path):
    with PackedWriter(tmp_path / "whole.fvae", image_size=8, attribute_names=("A", "B")) as writer:
        images = np.random.Generator(np.random.PCG64(0)).integers(0, 256, (7, 8, 8, 3), dtype=np.uint8)
        names = [f"{number}.jpg" for number in range(7)]
        writer.append(images, splits=np.arange(7) % 3, attributes=np.eye(7, 2), names=names)
        writer.info = {"kind": "folder", "source": "photos", "skipped": {"count": 0, "first": []}}
    return (tmp_path / "whole.fvae").read_bytes()


def use_all_of(path):
    """What the rest of fastvae asks of a packed file."""
    packed = PackedImages.open(path)
    assert packed.images.shape == (len(packed), *packed.images.shape[1:3], 3)
    assert packed.splits.shape == (len(packed),) and packed.splits.max() <= 2
    assert len(packed.names) in (0, len(packed))
    assert packed.attributes is None or packed.attributes.shape == (len(packed), len(packed.attribute_names))
    assert all(name.isprintable() for name in packed.attribute_names)
    int(packed.images[-1].max())
    packed.held_out()
    packed.verify()


def with_header(data: bytes, header) -> bytes:
    text = json.dumps(header).encode()
    return (data[:12] + len(text).to_bytes(4, "little") + text).ljust(65536, b"\x00")[:65536] + data[65536:]


def header_of(data: bytes):
    return json.loads(data[16 : 16 + int.from_bytes(data[12:16], "little")])


def test_packed_headers(tmp_path, packed_bytes):
    path = tmp_path / "set.fvae"

    def write(random: Random) -> None:
        path.write_bytes(with_header(packed_bytes, mutated_json(header_of(packed_bytes), random)))

    worked, refused = outcomes(lambda: use_all_of(path), write, 600)
    # Prose may say anything, and fields of later versions may be there.
    assert worked > 50 and refused > 200


def test_packed_bytes(tmp_path, packed_bytes):
    path = tmp_path / "set.fvae"

    def write(random: Random) -> None:
        head = packed_bytes[:1500] if random.random() < 0.5 else b""
        changed = mutated_bytes(head or packed_bytes, random)
        path.write_bytes(changed + packed_bytes[len(changed) :] if head else changed)

    _, refused = outcomes(lambda: use_all_of(path), write)
    assert refused > 150


@pytest.mark.parametrize("ending", ["txt", "csv"])
@pytest.mark.parametrize("which", ["list_attr_celeba", "list_eval_partition"])
def test_celeba_lists(tmp_path, ending, which):
    touch_celeba_pictures(tmp_path)
    whole = {
        "list_attr_celeba": {"txt": CELEBA_ATTRIBUTES, "csv": CELEBA_ATTRIBUTES_CSV}[ending].encode(),
        "list_eval_partition": {"txt": CELEBA_SPLITS, "csv": CELEBA_SPLITS_CSV}[ending].encode(),
    }
    for name, data in whole.items():
        (tmp_path / f"{name}.{ending}").write_bytes(data)
    changed = tmp_path / f"{which}.{ending}"

    def read() -> None:
        source = read_celeba(tmp_path)
        assert source.attributes.shape == (3, len(source.attribute_names)) and source.attributes.max() <= 1
        assert source.splits.shape == (3,) and source.splits.max() <= 2
        assert all(name.isprintable() for name in source.attribute_names)

    _, refused = outcomes(read, lambda random: changed.write_bytes(mutated_bytes(whole[which], random)))
    assert refused > 50


def read_whole_cifar10(folder):
    source = read_cifar10(folder)
    assert source.images.shape == (len(source.names), 32, 32, 3)
    assert source.attributes.shape == (len(source.names), 10) and (source.attributes.sum(1) == 1).all()


def test_cifar10_labels(tmp_path):
    write_cifar_pngs(tmp_path)
    file = tmp_path / "train_lables.json"
    whole = file.read_bytes()

    def write(random: Random) -> None:
        is_json = random.random() < 0.5
        file.write_bytes(
            json.dumps(mutated_json(json.loads(whole), random)).encode() if is_json else mutated_bytes(whole, random)
        )

    _, refused = outcomes(lambda: read_whole_cifar10(tmp_path), write)
    assert refused > 150


@pytest.mark.parametrize(
    ("layout", "file"), [(write_cifar_binary, "data_batch_2.bin"), (write_cifar_pngs, "test_batch.png")]
)
def test_cifar10_batches(tmp_path, layout, file):
    layout(tmp_path)
    whole = (tmp_path / file).read_bytes()
    _, refused = outcomes(
        lambda: read_whole_cifar10(tmp_path), lambda random: (tmp_path / file).write_bytes(mutated_bytes(whole, random))
    )
    assert refused > 100


@pytest.mark.parametrize("dump", [python2_pickle, lambda value: pickle.dumps(value, 2), pickle.dumps])
def test_cifar10_pickles(tmp_path, dump, monkeypatch):
    for module, name in (("os", "system"), ("builtins", "exec"), ("builtins", "eval"), ("pickle", "loads")):
        monkeypatch.setattr(f"{module}.{name}", lambda *_: pytest.fail("code was run"))
    write_cifar_pickles(tmp_path, dump)
    file = tmp_path / "data_batch_2"
    whole = file.read_bytes()

    def write(random: Random) -> None:
        if random.random() < 0.5:
            file.write_bytes(mutated_bytes(whole, random))
        else:
            calls = random.choice((b"", b"cos\nsystem\n(U\x04truetR", b"cbuiltins\nexec\n(U\x011tR", b"cos\nsystem\n"))
            cut = random.randint(2, 200)
            file.write_bytes(mutated_bytes(whole[:cut], random) + calls + whole[cut:])

    _, refused = outcomes(lambda: read_whole_cifar10(tmp_path), write)
    assert refused > 150


def test_cifar10_archives(tmp_path):
    write_cifar_pickles(tmp_path / "files")
    archive = packed_tar(tmp_path / "files", tmp_path / "cifar-10-python.tar.gz", "cifar-10-batches-py")
    whole = archive.read_bytes()
    tar = gzip.decompress(whole)

    def write(random: Random) -> None:
        is_inside = random.random() < 0.5
        archive.write_bytes(gzip.compress(mutated_bytes(tar, random), 1) if is_inside else mutated_bytes(whole, random))

    _, refused = outcomes(lambda: read_whole_cifar10(archive), write)
    assert refused > 100


def test_celeba_in_zip_files(tmp_path):
    archive = tmp_path / "archive.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as opened:
        for number in (1, 2, 3):
            opened.writestr(f"img_align_celeba/{number:06}.jpg", b"")
        opened.writestr("list_attr_celeba.csv", CELEBA_ATTRIBUTES_CSV)
        opened.writestr("list_eval_partition.csv", CELEBA_SPLITS_CSV)
    whole = archive.read_bytes()

    def read() -> None:
        source = read_celeba(archive)
        assert len(source.names) == len(source.images.names) == len(source.splits) == len(list(source.images)) > 0
        assert source.attributes.shape == (len(source.names), len(source.attribute_names))

    _, refused = outcomes(read, lambda random: archive.write_bytes(mutated_bytes(whole, random)))
    assert refused > 100


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "BMP"])
def test_pictures(form):
    file = io.BytesIO()
    photo(40, 40).save(file, form)
    worked = 0
    for seed in range(COUNT):
        damaged = io.BytesIO(mutated_bytes(file.getvalue(), Random(seed)))
        image = decode_pillow.decode_file(damaged, crop="auto", size=16)
        if isinstance(image, np.ndarray):
            assert image.shape == (16, 16, 3)
            worked += 1
        else:
            assert image.reason and image.reason.isprintable(), seed
    assert 0 < worked < COUNT


def test_a_picture_of_too_many_pixels_is_not_decoded(tmp_path):
    Image.new("1", (40_000, 5_000)).save(tmp_path / "bomb.png")
    tracemalloc.start()
    try:
        image = decode_pillow.decode_file(tmp_path / "bomb.png", crop="auto", size=16)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
    assert "pixels" in image.reason


def test_sizes_that_are_only_claimed_cost_nothing(tmp_path, packed_bytes):
    """A file of a terabyte, of which the disk holds none, and headers that claim as much."""
    header = header_of(packed_bytes)
    for shape in ([2**40, 8, 8, 3], [2**62, 2**62, 2**62, 3], [1] * 20_000, [10**30, 8, 8, 3]):
        header["blocks"]["images"]["shape"] = shape
        (tmp_path / "set.fvae").write_bytes(with_header(packed_bytes, header))
        with pytest.raises(FastvaeError):
            PackedImages.open(tmp_path / "set.fvae")
    with (tmp_path / "set.fvae").open("r+b") as file:
        file.truncate(1 << 40)
    write_cifar_binary(tmp_path / "cifar")
    with (tmp_path / "cifar" / "test_batch.bin").open("r+b") as file:
        file.truncate(1 << 40)
    touch_celeba_pictures(tmp_path / "celeba")
    for name in ("list_attr_celeba.txt", "list_eval_partition.txt"):
        with (tmp_path / "celeba" / name).open("wb") as file:
            file.truncate(1 << 40)
    with (tmp_path / "huge.webp").open("wb") as file:
        file.write(b"RIFF\xff\xff\xff\xffWEBPVP8 ")
        file.truncate(1 << 40)
    for read in (
        lambda: PackedImages.open(tmp_path / "set.fvae"),
        lambda: read_cifar10(tmp_path / "cifar"),
        lambda: read_celeba(tmp_path / "celeba"),
    ):
        with pytest.raises(FastvaeError):
            read()
    assert "larger than 256 MiB" in decode_pillow.decode_file(tmp_path / "huge.webp", crop=None, size=8).reason
