import pickle

import numpy as np
import pytest

from fastvae.data.sources.cifar100 import is_cifar100, read_cifar100
from fastvae.errors import FastvaeError
from tests.data.layouts import (
    CIFAR100_LABELS,
    CIFAR100_NAMES,
    CIFAR_PIXELS,
    packed_tar,
    write_cifar100,
    write_cifar100_binary,
)
from tests.data.pickles import python2_pickle


def check(given):
    assert is_cifar100(given)
    source = read_cifar100(given)
    assert (source.kind, source.native_size) == ("cifar100", 32)
    assert np.array_equal(source.images, CIFAR_PIXELS[[0, 5]].reshape(-1, 32, 32, 3))
    assert source.attribute_names == tuple(CIFAR100_NAMES)
    assert source.attributes.argmax(1).tolist() == [*CIFAR100_LABELS, *CIFAR100_LABELS]
    assert source.splits.tolist() == [0, 0, 0, 2, 2, 2]
    assert (source.names[0], source.names[-1]) == ("train/0", "test/2")


@pytest.mark.parametrize(
    ("write", "inner"),
    [
        (write_cifar100, ""),
        (write_cifar100, "cifar-100-python"),
        (lambda folder: write_cifar100(folder, pickle.dumps), ""),
        (write_cifar100_binary, ""),
        (write_cifar100_binary, "cifar-100-binary"),
    ],
)
def test_folders(tmp_path, write, inner):
    write(tmp_path / inner)
    check(tmp_path)


@pytest.mark.parametrize("given", [".", "cifar-100-python.tar.gz"])
def test_unopened_archives(tmp_path, given):
    write_cifar100(tmp_path / "files")
    packed_tar(tmp_path / "files", tmp_path / "cifar-100-python.tar.gz", "cifar-100-python")
    check(tmp_path / given)


@pytest.mark.parametrize(
    ("meta", "message"),
    [
        (None, r"lacks meta or fine_label_names.txt, which names CIFAR-100's classes"),
        ({"fine_label_names": ["a"] * 100}, "meta must contain the 100 names"),
        ({"fine_label_names": list(range(100))}, "meta must contain the 100 names"),
        ({"fine_label_names": 5}, "meta must contain the 100 names"),
        ({"fine_label_names": [[["a"]]] * 100}, "meta must contain the 100 names"),
        ({}, "meta must contain the 100 names"),
        ([], "meta is damaged or not a batch of CIFAR"),
    ],
)
def test_damaged_names_of_classes(tmp_path, meta, message):
    write_cifar100(tmp_path)
    (tmp_path / "meta").unlink()
    if meta is not None:
        (tmp_path / "meta").write_bytes(python2_pickle(meta))
    with pytest.raises(FastvaeError, match=message):
        read_cifar100(tmp_path)


def test_nothing_of_cifar100(tmp_path):
    (tmp_path / "train").touch()
    assert not is_cifar100(tmp_path)
    with pytest.raises(FastvaeError, match="lacks test of CIFAR-100"):
        read_cifar100(tmp_path)
    (tmp_path / "train").unlink()
    with pytest.raises(FastvaeError, match="does not contain CIFAR-100"):
        read_cifar100(tmp_path)
