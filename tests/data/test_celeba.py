import numpy as np
import pytest

from fastvae.data.celeba import is_celeba, read_celeba
from fastvae.errors import FastvaeError
from tests.data.layouts import CELEBA_ATTRIBUTES, CELEBA_SPLITS, touch_celeba_pictures, write_celeba_lists


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
    ],
)
def test_where_files_may_lie(tmp_path, pictures, lists, given):
    touch_celeba_pictures(tmp_path / pictures)
    write_celeba_lists(tmp_path / lists)
    assert is_celeba(tmp_path / given)
    check(read_celeba(tmp_path / given), tmp_path / pictures)


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
        ({"attributes": ""}, "list_attr_celeba.txt is damaged: it names no attributes"),
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
    with pytest.raises(FastvaeError, match=r"list_attr_celeba.txt is not in .*faces and the two folders above it"):
        read_celeba(tmp_path / "a/b/faces")
    with pytest.raises(FastvaeError, match=r"list_attr_celeba.txt is not in"):
        read_celeba(tmp_path / "a/b/faces", annotations=tmp_path)
    with pytest.raises(FastvaeError, match="annotations must be a folder"):
        read_celeba(tmp_path / "a/b/faces", annotations=tmp_path / "none")


def test_no_pictures(tmp_path):
    write_celeba_lists(tmp_path)
    with pytest.raises(FastvaeError, match="holds no pictures"):
        read_celeba(tmp_path)
