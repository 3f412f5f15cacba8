import pytest

from fastvae.data.detect import read_source
from fastvae.errors import FastvaeError, UsageError
from tests.data.layouts import (
    touch_celeba_pictures,
    write_celeba_lists,
    write_cifar_binary,
    write_cifar_folders,
    write_cifar_pngs,
)
from tests.data.pictures import save_photos


def write_celeba(folder):
    touch_celeba_pictures(folder)
    write_celeba_lists(folder)


@pytest.mark.parametrize(
    ("write", "kind"),
    [
        (write_celeba, "celeba"),
        (write_cifar_binary, "cifar10"),
        (write_cifar_pngs, "cifar10"),
        (write_cifar_folders, "cifar10"),
        (lambda folder: save_photos(folder, ["a.png", "b.png"]), "folder"),
    ],
)
def test_auto(tmp_path, write, kind):
    write(tmp_path)
    assert read_source(tmp_path).kind == kind
    assert read_source(tmp_path, kind=kind).kind == kind


def test_annotations_mean_celeba(tmp_path):
    touch_celeba_pictures(tmp_path / "faces")
    write_celeba_lists(tmp_path / "a/b/lists")
    assert read_source(tmp_path / "faces").kind == "folder"
    assert read_source(tmp_path / "faces", annotations=tmp_path / "a/b/lists").kind == "celeba"


def test_a_kind_can_be_chosen(tmp_path):
    write_celeba(tmp_path)
    assert read_source(tmp_path, kind="folder").kind == "folder"


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("celabe", "kind must be one of auto, celeba, cifar10, folder; got 'celabe'; did you mean 'celeba'"),
        ("zip", "kind must be one of auto, celeba, cifar10, folder; got 'zip'"),
    ],
)
def test_unknown_kinds(tmp_path, kind, message):
    with pytest.raises(UsageError, match=message):
        read_source(tmp_path, kind=kind)


def test_annotations_for_another_kind(tmp_path):
    with pytest.raises(UsageError, match="annotations go with CelebA; got kind 'folder'"):
        read_source(tmp_path, kind="folder", annotations=tmp_path)


def test_paths_that_are_no_folder(tmp_path):
    (tmp_path / "celeba.zip").touch()
    with pytest.raises(FastvaeError, match=r"celeba.zip is a file; give the folder"):
        read_source(tmp_path / "celeba.zip")
    with pytest.raises(FastvaeError, match="nothing does not exist"):
        read_source(tmp_path / "nothing")
    with pytest.raises(FastvaeError, match="holds no pictures"):
        read_source(tmp_path)
