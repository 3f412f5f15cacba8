import numpy as np
import pytest
from PIL import Image

from fastvae.data.sources.cifar10 import CLASSES, is_cifar10, read_cifar10
from fastvae.errors import FastvaeError
from tests.data.layouts import (
    CIFAR_BATCHES,
    CIFAR_LABELS,
    CIFAR_PIXELS,
    write_cifar_binary,
    write_cifar_folders,
    write_cifar_pngs,
)


@pytest.mark.parametrize(
    ("write", "inner"),
    [
        (write_cifar_binary, ""),
        (write_cifar_binary, "cifar-10-batches-bin"),
        (write_cifar_pngs, ""),
        (lambda folder: write_cifar_pngs(folder, "labels"), ""),
    ],
)
def test_batches(tmp_path, write, inner):
    write(tmp_path / inner)
    assert is_cifar10(tmp_path)
    source = read_cifar10(tmp_path)
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


def test_class_folders(tmp_path):
    write_cifar_folders(tmp_path)
    assert is_cifar10(tmp_path)
    source = read_cifar10(tmp_path)
    assert (source.kind, source.native_size, source.attribute_names) == ("cifar10", 32, CLASSES)
    assert np.bincount(source.splits).tolist() == [20, 0, 10]
    assert all(CLASSES[row.argmax()] in name for row, name in zip(source.attributes, source.names, strict=True))


@pytest.mark.parametrize("inner", ["", "cifar-10-batches-py"])
def test_pickles_are_refused(tmp_path, inner):
    (tmp_path / inner).mkdir(exist_ok=True)
    for name in (*CIFAR_BATCHES, "batches.meta"):
        (tmp_path / inner / name).write_bytes(b"\x80\x04")
    assert is_cifar10(tmp_path)
    with pytest.raises(FastvaeError, match=r"Python pickles, which fastvae does not load.* cifar-10-binary.tar.gz"):
        read_cifar10(tmp_path)


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
    ],
)
def test_damaged_files(tmp_path, write, damage, message):
    write(tmp_path)
    damage(tmp_path)
    with pytest.raises(FastvaeError, match=message) as caught:
        read_cifar10(tmp_path)
    assert "\n" not in str(caught.value)


def test_nothing_of_cifar10(tmp_path):
    assert not is_cifar10(tmp_path)
    with pytest.raises(FastvaeError, match="does not contain CIFAR-10"):
        read_cifar10(tmp_path)
