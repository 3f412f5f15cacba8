import pytest
from PIL import Image

from fastvae.data.sources.detect import read_source
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
        ("celabe", "unknown kind of data set 'celabe', did you mean 'celeba'"),
        ("zip", "unknown kind of data set 'zip'; choose from auto, celeba, cifar10, folder"),
    ],
)
def test_unknown_kinds(tmp_path, kind, message):
    with pytest.raises(UsageError, match=message):
        read_source(tmp_path, kind=kind)


def test_annotations_for_another_kind(tmp_path):
    with pytest.raises(UsageError, match="--annotations is for CelebA; got --kind folder"):
        read_source(tmp_path, kind="folder", annotations=tmp_path)


def test_paths_that_are_no_folder(tmp_path):
    (tmp_path / "celeba.txt").touch()
    with pytest.raises(FastvaeError, match=r"celeba.txt is a file; give the folder"):
        read_source(tmp_path / "celeba.txt")
    with pytest.raises(FastvaeError, match="nothing does not exist"):
        read_source(tmp_path / "nothing")
    with pytest.raises(FastvaeError, match="contains no pictures"):
        read_source(tmp_path)


@pytest.mark.parametrize(
    ("write", "said"),
    [
        (
            write_celeba,
            "read as CelebA: 3 pictures; 1 train, 1 validation, 1 test (list_eval_partition.txt); 2 attributes",
        ),
        (write_cifar_binary, "read as CIFAR-10: 18 pictures; 15 train, 0 validation, 3 test"),
        (
            lambda folder: save_photos(folder, ["Train/b/1.png", "Test/a/2.png"]),
            "1 test (folders Test, Train); 2 classes (a, b)",
        ),
    ],
)
def test_what_was_read_is_said(tmp_path, caplog, write, said):
    write(tmp_path)
    with caplog.at_level("INFO", "fastvae"):
        read_source(tmp_path)
    assert said in caplog.text


def test_what_is_left_out_is_said(tmp_path, caplog):
    save_photos(tmp_path, ["a.png", "b.png"])
    (tmp_path / "notes.txt").touch()
    with caplog.at_level("INFO", "fastvae"):
        read_source(tmp_path)
    assert {record.levelname for record in caplog.records} == {"INFO"} and "1 not pictures (notes.txt)" in caplog.text
    (tmp_path / "c.gif").touch()
    read_source(tmp_path)
    assert caplog.records[-1].levelname == "WARNING" and "c.gif" in caplog.text


def test_celeba_without_its_lists_is_said_to_be_read_as_plain(tmp_path, caplog):
    folder = tmp_path / "a/b/faces"
    folder.mkdir(parents=True)
    for number in range(3):
        Image.new("RGB", (178, 218)).save(folder / f"{number:06}.jpg")
    assert read_source(folder).kind == "folder"
    assert "list_attr_celeba and list_eval_partition (.txt or .csv) is not in" in caplog.text
    write_celeba_lists(tmp_path / "a")
    (tmp_path / "a/list_eval_partition.txt").unlink()
    caplog.clear()
    read_source(folder)
    assert "but list_eval_partition (.txt" in caplog.text
    caplog.clear()
    read_source(folder, kind="folder")
    Image.new("RGB", (64, 64)).save(folder / "000000.jpg")
    read_source(folder)
    assert not caplog.records
