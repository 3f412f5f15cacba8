import os

import numpy as np
import pytest

from fastvae.data.sources.celeba import is_celeba, read_celeba
from fastvae.errors import FastvaeError
from tests.data.layouts import (
    CELEBA_ATTRIBUTES,
    CELEBA_ATTRIBUTES_CSV,
    CELEBA_SPLITS,
    CELEBA_SPLITS_CSV,
    touch_celeba_pictures,
    write_celeba_lists,
)


def check(source, folder):
    assert source.kind == "celeba"
    assert source.images == [folder / f"00000{number}.jpg" for number in (1, 2, 3)]
    assert source.splits.tolist() == [0, 1, 2]
    assert source.attributes.dtype == source.splits.dtype == np.uint8
    assert source.attributes.tolist() == [[0, 1], [1, 0], [0, 0]]
    assert source.attribute_names == ("Bald", "Smiling")


@pytest.mark.parametrize(
    ("pictures", "lists", "given"),
    [
        ("img_align_celeba", ".", "img_align_celeba"),
        ("img_align_celeba", ".", "."),
        ("img_align_celeba/img_align_celeba", ".", "."),
        ("Img/img_align_celeba", "Anno", "."),
        ("Img/img_align_celeba", "Eval", "Img/img_align_celeba"),
        ("faces", "faces", "faces"),
        ("faces", ".", "faces"),
        ("img_align_celeba_png", ".", "."),
        ("Img/img_align_celeba_png", "Anno", "."),
        ("img_align_celeba_png", "Anno", "img_align_celeba_png"),
        ("images", ".", "."),
    ],
)
def test_where_files_may_lie(tmp_path, pictures, lists, given):
    touch_celeba_pictures(tmp_path / pictures)
    write_celeba_lists(tmp_path / lists)
    assert is_celeba(tmp_path / given)
    check(read_celeba(tmp_path / given), tmp_path / pictures)


@pytest.mark.parametrize("given", [".", "img_align_celeba/img_align_celeba"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_as_kaggle_has_it(tmp_path, given, mark):
    pictures = tmp_path / "img_align_celeba/img_align_celeba"
    touch_celeba_pictures(pictures)
    (tmp_path / "list_attr_celeba.csv").write_text(mark + CELEBA_ATTRIBUTES_CSV, newline="\r\n")
    (tmp_path / "list_eval_partition.csv").write_text(mark + CELEBA_SPLITS_CSV)
    assert is_celeba(tmp_path / given)
    check(read_celeba(tmp_path / given), pictures)
    assert read_celeba(tmp_path / given).split_rule == "list_eval_partition.csv"


def test_lists_beside_a_link_and_beside_what_it_leads_to(tmp_path):
    touch_celeba_pictures(tmp_path / "disk/faces")
    (tmp_path / "data").mkdir()
    (tmp_path / "data/img_align_celeba").symlink_to(tmp_path / "disk/faces")
    for lists in ("data", "disk"):
        write_celeba_lists(tmp_path / lists)
        check(read_celeba(tmp_path / "data/img_align_celeba"), tmp_path / "data/img_align_celeba")
        for file in (tmp_path / lists).glob("*.txt"):
            file.unlink()


def test_names_that_are_not_utf8(tmp_path):
    folder = tmp_path / os.fsdecode(b"\xfc")
    name = os.fsdecode(b"b\xfc")
    folder.mkdir()
    (folder / f"{name}.jpg").touch()
    (folder / "list_attr_celeba.txt").write_bytes(b"1\nBald\nb\xfc.jpg -1\n")
    (folder / "list_eval_partition.txt").write_bytes(b"b\xfc.jpg 2\n")
    assert read_celeba(folder).splits.tolist() == [2]


def test_a_list_that_is_a_pipe_is_none(tmp_path):
    touch_celeba_pictures(tmp_path)
    write_celeba_lists(tmp_path)
    (tmp_path / "list_attr_celeba.txt").unlink()
    os.mkfifo(tmp_path / "list_attr_celeba.txt")
    assert not is_celeba(tmp_path)
    with pytest.raises(FastvaeError, match=r"neither list_attr_celeba.txt nor"):
        read_celeba(tmp_path)


def test_annotations_elsewhere(tmp_path):
    touch_celeba_pictures(tmp_path / "faces")
    write_celeba_lists(tmp_path / "a/b/c")
    assert not is_celeba(tmp_path / "faces")
    check(read_celeba(tmp_path / "faces", annotations=tmp_path / "a/b/c"), tmp_path / "faces")


def test_other_pictures_beside_the_lists_are_not_celeba(tmp_path):
    write_celeba_lists(tmp_path)
    (tmp_path / "flowers").mkdir()
    (tmp_path / "flowers/rose.jpg").touch()
    assert not is_celeba(tmp_path / "flowers")


def test_some_of_the_pictures_and_the_png_edition(tmp_path):
    touch_celeba_pictures(tmp_path, (3, 1), "png")
    write_celeba_lists(tmp_path)
    source = read_celeba(tmp_path)
    assert source.names == ["000001.png", "000003.png"]
    assert source.splits.tolist() == [0, 2]
    assert source.attributes.tolist() == [[0, 1], [0, 0]]


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        ({"attributes": CELEBA_ATTRIBUTES[:-18]}, r"1 of 3 pictures in .* not in list_attr_celeba.txt .*000003.jpg"),
        ({"splits": CELEBA_SPLITS[:26]}, r"1 of 3 pictures in .* not in list_eval_partition.txt .*000003.jpg"),
        ({"attributes": ""}, "list_attr_celeba.txt is damaged: it contains no attribute names"),
        (
            {"attributes": CELEBA_ATTRIBUTES.replace("1 -1\n", "1\n", 1)},
            "list_attr_celeba.txt, line 4: expected a name and 2",
        ),
        ({"attributes": CELEBA_ATTRIBUTES.replace("1 -1\n", "1 x\n", 1)}, "list_attr_celeba.txt, line 4"),
        ({"splits": CELEBA_SPLITS.replace("1\n", "3\n")}, "list_eval_partition.txt, line 2: .* got '000002.jpg 3'"),
    ],
)
def test_damaged_lists(tmp_path, lists, message):
    touch_celeba_pictures(tmp_path)
    write_celeba_lists(tmp_path, **lists)
    with pytest.raises(FastvaeError, match=message):
        read_celeba(tmp_path)


def test_missing_lists(tmp_path):
    touch_celeba_pictures(tmp_path / "a/b/faces")
    with pytest.raises(FastvaeError, match=r"neither list_attr_celeba.txt nor .*faces and the two folders above it"):
        read_celeba(tmp_path / "a/b/faces")
    with pytest.raises(FastvaeError, match=r"neither list_attr_celeba.txt nor"):
        read_celeba(tmp_path / "a/b/faces", annotations=tmp_path)
    with pytest.raises(FastvaeError, match=r"--annotations .* must be a folder"):
        read_celeba(tmp_path / "a/b/faces", annotations=tmp_path / "none")


def test_no_pictures(tmp_path):
    write_celeba_lists(tmp_path)
    with pytest.raises(FastvaeError, match="contains no pictures"):
        read_celeba(tmp_path)
