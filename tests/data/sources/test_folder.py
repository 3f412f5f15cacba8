import os

import numpy as np
import pytest

from fastvae.data.sources.folder import read_folder, split_of
from fastvae.errors import FastvaeError
from tests.data.pictures import save_photos


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


@pytest.mark.parametrize(("count", "validation"), [(1, []), (2, [1]), (19, [18]), (20, [19]), (65, [19, 39, 59])])
def test_every_20th_is_validation(tmp_path, count, validation):
    touch(tmp_path, *[f"{i:03}.jpg" for i in range(count)])
    source = read_folder(tmp_path)
    assert np.flatnonzero(source.splits == 1).tolist() == validation
    assert not (source.splits == 2).any()
    assert "every 20th" in source.split_rule
    assert source.attributes.shape == (count, 0)


@pytest.mark.parametrize("validation", ["val", "validation", "valid", "Validation", "VAL", "dev", "val2017"])
def test_split_folders(tmp_path, validation):
    touch(tmp_path, "train/a.jpg", "train/b/c.jpg", f"{validation}/d.jpg", "test/e.jpg")
    source = read_folder(tmp_path)
    splits = dict(zip(source.names, source.splits.tolist(), strict=True))
    assert splits == {"train/a.jpg": 0, "train/b/c.jpg": 0, f"{validation}/d.jpg": 1, "test/e.jpg": 2}
    assert source.split_rule == f"folders {', '.join(sorted(('test', 'train', validation)))}"
    assert source.images[0] == tmp_path / source.names[0]


def test_pictures_outside_of_the_split_folders(tmp_path):
    touch(tmp_path, "train/a.jpg", "test/b.jpg", "c.jpg", "other/d.jpg")
    with pytest.raises(FastvaeError, match=r"2 pictures are outside them \(first: c.jpg\)"):
        read_folder(tmp_path)


def test_a_train_folder_alone_is_split(tmp_path):
    touch(tmp_path, *[f"train/{i:02}.jpg" for i in range(20)])
    assert read_folder(tmp_path).splits.sum() == 1


@pytest.mark.parametrize("prefixes", [("",), ("train/", "test/"), ("train/",)])
def test_classes(tmp_path, prefixes):
    for prefix in prefixes:
        touch(tmp_path, f"{prefix}cat/1.png", f"{prefix}ant/1.png", f"{prefix}ant/deep/2.png")
    source = read_folder(tmp_path)
    assert source.attribute_names == ("ant", "cat")
    expected = [[0, 1] if "cat" in name else [1, 0] for name in source.names]
    assert source.attributes.dtype == np.uint8
    assert source.attributes.tolist() == expected


@pytest.mark.parametrize(
    "names", [["a/1.png", "b/1.png", "c.png"], ["a/1.png", "a/2.png"], [f"{i}/1.png" for i in range(257)]]
)
def test_folders_that_are_no_classes(tmp_path, names):
    touch(tmp_path, *names)
    assert read_folder(tmp_path).attribute_names == ()


@pytest.mark.parametrize(
    ("split", "names"),
    [
        (0, ["train", "Train", "TRAINING", "training_set", "train2017", "train-images"]),
        (1, ["val", "valid", "validation", "Valid", "dev", "val_data", "validation set"]),
        (2, ["test", "TEST", "testing", "test_set", "test1"]),
        (None, ["trains", "testament", "valley", "device", "latest", "cats", "", "train cats", "contest"]),
    ],
)
def test_names_of_splits(split, names):
    assert [split_of(name) for name in names] == [split] * len(names)


@pytest.mark.parametrize(
    ("names", "splits", "classes"),
    [
        # As Roboflow, YOLO, Kaggle's archives and MVTec have them.
        (["train/images/a.jpg", "valid/images/b.jpg"], [0, 1], ()),
        (["images/train/a.jpg", "images/val/b.jpg"], [0, 1], ()),
        (["archive/data/Test/dog/a.jpg", "archive/data/Train/cat/b.jpg"], [2, 0], ("cat", "dog")),
        (["cat/test/a.jpg", "cat/train/b.jpg", "dog/train/c.jpg"], [2, 0, 0], ("cat", "dog")),
        (["archive/cat/a.jpg", "archive/dog/b.jpg"], [0, 1], ("cat", "dog")),
        # Below one class alone they are none.
        (["cat/test/a.jpg", "cat/train/b.jpg", "dog/c.jpg"], [0, 0, 1], ("cat", "dog")),
        # Twice the same split is one.
        (["train1/a.jpg", "train2/b.jpg"], [0, 1], ()),
    ],
)
def test_where_the_folders_of_splits_may_lie(tmp_path, names, splits, classes):
    touch(tmp_path, *names, "labels/a.txt")
    source = read_folder(tmp_path)
    assert source.names == names
    assert source.splits.tolist() == splits
    assert source.attribute_names == classes


def test_linked_splits_and_classes(tmp_path):
    touch(tmp_path / "store", "1/a.jpg", "2/b.jpg")
    (tmp_path / "set").mkdir()
    (tmp_path / "set/train").symlink_to(tmp_path / "store/1")
    (tmp_path / "set/test").symlink_to(tmp_path / "store/2")
    assert read_folder(tmp_path / "set").splits.tolist() == [2, 0]


def test_names_of_classes_can_be_printed(tmp_path):
    touch(tmp_path, os.fsdecode(b"caf\xe9/1.png"), "a\nb/2.png")
    assert read_folder(tmp_path).attribute_names == (r"a\nb", r"caf\xe9")


def test_a_class_may_be_called_train(tmp_path):
    save_photos(tmp_path, [f"{kind}/{number}.png" for kind in ("bus", "car", "train") for number in range(3)])
    assert read_folder(tmp_path).attribute_names == ("bus", "car", "train")


def test_a_lone_split_of_classes_is_no_class(tmp_path):
    save_photos(tmp_path, [f"train/{kind}/{number}.png" for kind in ("bus", "car") for number in range(3)])
    save_photos(tmp_path, ["more/bus/1.png"])
    assert "train" not in read_folder(tmp_path).attribute_names


@pytest.mark.parametrize("names", [("train", "eval"), ("Training", "holdout"), ("train", "hold_out")])
def test_splits_by_other_names(tmp_path, names):
    save_photos(tmp_path, [f"{names[0]}/{number}.png" for number in range(3)] + [f"{names[1]}/1.png"])
    assert read_folder(tmp_path).splits.tolist().count(1) == 1


@pytest.mark.parametrize("names", [("img_train", "img_test"), ("trainA", "testA"), ("train_station", "test_tube")])
def test_folders_that_may_be_splits_are_classes_with_a_warning(tmp_path, names):
    save_photos(tmp_path, [f"{name}/{number}.png" for name in names for number in range(3)])
    source = read_folder(tmp_path)
    assert source.attribute_names == tuple(sorted(names))
    assert source.warnings == (
        f"the folders {' and '.join(sorted(names))} are not read as splits; "
        "if they are splits, rename them to train, val and test",
    )


@pytest.mark.parametrize(
    ("names", "notes"),
    [
        (
            ["cat/1.png", "dog/2.png", "cover.png"],
            ["2 folders are not read as classes, since 1 pictures are in none (cover.png)"],
        ),
        (
            [f"{number:03}/1.png" for number in range(257)],
            ["257 folders are read as albums, not as classes, of which there are at most 256"],
        ),
        (["cat/1.png", "dog/2.png"], []),
        (["cat/1.png", "cover.png"], []),
        (["1.png", "2.png"], []),
    ],
)
def test_why_folders_are_no_classes(tmp_path, names, notes):
    touch(tmp_path, *names)
    assert list(read_folder(tmp_path).notes) == notes
