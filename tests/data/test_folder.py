import numpy as np
import pytest

from fastvae.data.folder import read_folder
from fastvae.data.listing import list_pictures
from fastvae.errors import FastvaeError


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_finds_pictures_at_any_depth_in_order(tmp_path):
    touch(tmp_path, "b.PNG", "a/z.jpg", "a/b/c.webp", "a.jpeg", "d.bmp", "notes.txt", "e.gif")
    assert list_pictures(tmp_path).names == ["a.jpeg", "a/b/c.webp", "a/z.jpg", "b.PNG", "d.bmp"]


def test_leaves_hidden_files_out(tmp_path):
    touch(tmp_path, "a.jpg", "._a.jpg", ".cache/b.jpg", "__MACOSX/a.jpg")
    assert list_pictures(tmp_path).names == ["a.jpg"]


def test_links_in_a_circle(tmp_path):
    touch(tmp_path, "a/a.jpg")
    (tmp_path / "a" / "again").symlink_to(tmp_path)
    assert list_pictures(tmp_path).names == ["a/a.jpg"]


@pytest.mark.parametrize("names", [(), ("notes.txt",)])
def test_no_pictures(tmp_path, names):
    touch(tmp_path, *names)
    with pytest.raises(FastvaeError, match="holds no pictures"):
        read_folder(tmp_path)


@pytest.mark.parametrize(("count", "validation"), [(1, []), (2, [1]), (19, [18]), (20, [19]), (65, [19, 39, 59])])
def test_every_20th_is_validation(tmp_path, count, validation):
    touch(tmp_path, *[f"{i:03}.jpg" for i in range(count)])
    source = read_folder(tmp_path)
    assert np.flatnonzero(source.splits == 1).tolist() == validation
    assert not (source.splits == 2).any()
    assert "every 20th" in source.split_rule
    assert source.attributes.shape == (count, 0)


@pytest.mark.parametrize("validation", ["val", "validation"])
def test_split_folders(tmp_path, validation):
    touch(tmp_path, "train/a.jpg", "train/b/c.jpg", f"{validation}/d.jpg", "test/e.jpg")
    source = read_folder(tmp_path)
    splits = dict(zip(source.names, source.splits.tolist(), strict=True))
    assert splits == {"train/a.jpg": 0, "train/b/c.jpg": 0, f"{validation}/d.jpg": 1, "test/e.jpg": 2}
    assert source.split_rule == f"folders test, train, {validation}"
    assert source.images[0] == tmp_path / source.names[0]


def test_pictures_outside_of_the_split_folders(tmp_path):
    touch(tmp_path, "train/a.jpg", "test/b.jpg", "c.jpg", "other/d.jpg")
    with pytest.raises(FastvaeError, match=r"2 pictures lie outside of them \(first: c.jpg\)"):
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
