import io
import os
import re
import zipfile

import numpy as np
import pytest

from fastvae.data.sources.celeba import read_celeba
from fastvae.data.sources.celeba_places import find_places
from fastvae.data.sources.detect import read_source
from fastvae.errors import FastvaeError
from tests.data.layouts import (
    CELEBA_ATTRIBUTES,
    CELEBA_ATTRIBUTES_CSV,
    CELEBA_SPLITS,
    CELEBA_SPLITS_CSV,
    touch_celeba_pictures,
    write_celeba_lists,
)
from tests.data.packs import write_members
from tests.data.pictures import photo


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
        # Lists up to three folders above, as where Kaggle's archive was unpacked into the official folder.
        ("a/b/c/faces", "a/b/c", "a/b/c/faces"),
        ("a/b/c/faces", "a/b", "a/b/c/faces"),
        ("a/b/c/faces", "a", "a/b/c/faces"),
        ("Img/img_align_celeba/img_align_celeba", "Anno", "Img/img_align_celeba/img_align_celeba"),
        ("Img/img_align_celeba/img_align_celeba", "Anno", "Img"),
        # The folder above all of it, as torchvision wants it.
        ("celeba/img_align_celeba", "celeba", "."),
        ("archive/img_align_celeba/img_align_celeba", "archive", "."),
        ("CelebA/Img/img_align_celeba_png", "CelebA/Anno", "."),
        ("Img/img_celeba", "Anno", "."),
        ("Img/img_celeba", "Anno", "Img/img_celeba"),
    ],
)
def test_where_files_may_lie(tmp_path, pictures, lists, given):
    touch_celeba_pictures(tmp_path / pictures)
    write_celeba_lists(tmp_path / lists)
    assert find_places(tmp_path / given).are_complete
    check(read_celeba(tmp_path / given), tmp_path / pictures)


@pytest.mark.parametrize(("below", "kind"), [("VOC2007/JPEGImages", "folder"), ("JPEGImages", "celeba")])
def test_numbered_pictures_of_another_set_below_its_lists(tmp_path, below, kind):
    write_celeba_lists(tmp_path)
    (tmp_path / below).mkdir(parents=True)
    for number, size in enumerate([(50, 40), (40, 50), (30, 30)], start=1):
        photo(*size).save(tmp_path / below / f"{number:06}.jpg")
    source = read_source(tmp_path / below)
    assert source.kind == kind
    assert any("--kind celeba uses them" in note for note in source.notes) == (kind == "folder")
    assert read_source(tmp_path / below, kind="celeba").kind == "celeba"


@pytest.mark.parametrize("given", [".", "Img", "Img/img_align_celeba"])
def test_the_official_folder(tmp_path, given):
    pictures = tmp_path / "Img/img_align_celeba"
    for folder in (pictures, tmp_path / "Img/img_align_celeba_png", tmp_path / "Img/img_celeba"):
        touch_celeba_pictures(folder, suffix="png" if folder.name.endswith("png") else "jpg")
    (tmp_path / "Img/img_align_celeba.zip").touch()
    write_celeba_lists(tmp_path / "Anno")
    (tmp_path / "Eval").mkdir()
    (tmp_path / "Anno/list_eval_partition.txt").rename(tmp_path / "Eval/list_eval_partition.txt")
    for name in ("identity_CelebA", "list_bbox_celeba", "list_landmarks_celeba", "list_landmarks_align_celeba"):
        (tmp_path / f"Anno/{name}.txt").touch()
    source = read_celeba(tmp_path / given)
    check(source, pictures)
    assert not source.left_out and not source.warnings
    if given == ".":
        assert source.notes == (
            "pictures from Img/img_align_celeba; attributes from Anno/list_attr_celeba.txt; "
            "splits from Eval/list_eval_partition.txt",
            "not used: Img/img_align_celeba_png, Img/img_align_celeba.zip, Img/img_celeba, identity_CelebA.txt, "
            "list_bbox_celeba.txt, list_landmarks_align_celeba.txt, list_landmarks_celeba.txt",
        )


@pytest.mark.parametrize("ending", ["txt", "csv"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("no", ["-1", "0"])
def test_spellings_of_the_lists(tmp_path, ending, newline, mark, no):
    touch_celeba_pictures(tmp_path)
    attributes, splits = {
        "txt": (CELEBA_ATTRIBUTES, CELEBA_SPLITS),
        "csv": (CELEBA_ATTRIBUTES_CSV, CELEBA_SPLITS_CSV),
    }[ending]
    (tmp_path / f"list_attr_celeba.{ending}").write_text(mark + attributes.replace("-1", no), newline=newline)
    (tmp_path / f"list_eval_partition.{ending}").write_text(mark + splits, newline=newline)
    check(read_celeba(tmp_path), tmp_path)


@pytest.mark.parametrize("given", [".", "img_align_celeba/img_align_celeba"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_as_kaggle_has_it(tmp_path, given, mark):
    pictures = tmp_path / "img_align_celeba/img_align_celeba"
    touch_celeba_pictures(pictures)
    (tmp_path / "list_attr_celeba.csv").write_text(mark + CELEBA_ATTRIBUTES_CSV, newline="\r\n")
    (tmp_path / "list_eval_partition.csv").write_text(mark + CELEBA_SPLITS_CSV)
    assert find_places(tmp_path / given).are_complete
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
    assert not find_places(tmp_path).are_complete
    with pytest.raises(FastvaeError, match=r"neither list_attr_celeba.txt nor"):
        read_celeba(tmp_path)


def test_annotations_elsewhere(tmp_path):
    touch_celeba_pictures(tmp_path / "faces")
    write_celeba_lists(tmp_path / "a/b/c")
    assert not find_places(tmp_path / "faces").are_complete
    check(read_celeba(tmp_path / "faces", annotations=tmp_path / "a/b/c"), tmp_path / "faces")


def test_other_pictures_beside_the_lists_are_not_celeba(tmp_path):
    write_celeba_lists(tmp_path)
    (tmp_path / "flowers").mkdir()
    (tmp_path / "flowers/rose.jpg").touch()
    assert not find_places(tmp_path / "flowers").are_complete


def zip_pictures(archive, folder, texts=()):
    """A zip file with the three pictures in `folder`, and texts by name."""
    archive.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(archive, "w") as opened:
        for number in (1, 2, 3):
            picture = io.BytesIO()
            photo(178, 218, number).save(picture, "JPEG")
            opened.writestr(f"{folder}{number:06}.jpg", picture.getvalue())
        for name, text in dict(texts).items():
            opened.writestr(name, text)


def check_zip(source, archive, folder):
    names = [f"{folder}{number:06}.jpg" for number in (1, 2, 3)]
    assert (source.kind, source.root, source.form) == ("celeba", archive, "aligned, 178x218")
    assert source.names == source.images.names == names
    assert source.splits.tolist() == [0, 1, 2]
    assert source.attributes.tolist() == [[0, 1], [1, 0], [0, 0]]
    assert not source.left_out and not source.warnings


def test_a_zip_file_of_lists_alone(tmp_path):
    with zipfile.ZipFile(tmp_path / "CelebA.zip", "w") as opened:
        opened.writestr("Anno/list_attr_celeba.txt", CELEBA_ATTRIBUTES)
        opened.writestr("Eval/list_eval_partition.txt", CELEBA_SPLITS)
    with pytest.raises(FastvaeError, match="contains no pictures"):
        read_source(tmp_path / "CelebA.zip", kind="celeba")


@pytest.mark.parametrize("given", [".", "Img", "Img/img_align_celeba.zip"])
def test_the_official_zip_file_unopened(tmp_path, given):
    archive = tmp_path / "Img/img_align_celeba.zip"
    zip_pictures(archive, "img_align_celeba/")
    write_celeba_lists(tmp_path / "Anno")
    assert find_places(tmp_path / given).are_complete
    check_zip(read_celeba(tmp_path / given), archive, "img_align_celeba/")


def test_kaggles_zip_file_unopened(tmp_path):
    texts = {
        "list_attr_celeba.csv": "\ufeff" + CELEBA_ATTRIBUTES_CSV.replace("\n", "\r\n"),
        "list_eval_partition.csv": CELEBA_SPLITS_CSV,
        "list_bbox_celeba.csv": "image_id,x_1,y_1,width,height\n",
    }
    archive, folder = tmp_path / "archive.zip", "img_align_celeba/img_align_celeba/"
    zip_pictures(archive, folder, texts)
    # Those inside belong to the pictures.
    write_celeba_lists(tmp_path, attributes="1\nBald\n000001.jpg 1\n")
    assert find_places(archive).are_complete
    source = read_celeba(archive)
    check_zip(source, archive, folder)
    assert source.split_rule == "list_eval_partition.csv"
    assert source.notes == (
        "pictures from archive.zip; attributes from list_attr_celeba.csv; splits from list_eval_partition.csv",
        "not used: list_bbox_celeba.csv",
    )


@pytest.mark.parametrize("damaged", ["list_attr_celeba.csv", "list_eval_partition.csv"])
def test_a_damaged_list_in_a_zip_file(tmp_path, damaged):
    texts = {"list_attr_celeba.csv": CELEBA_ATTRIBUTES_CSV, "list_eval_partition.csv": CELEBA_SPLITS_CSV}
    zip_pictures(tmp_path / "archive.zip", "", texts)
    data = (tmp_path / "archive.zip").read_bytes()
    (tmp_path / "archive.zip").write_bytes(data.replace(texts[damaged].encode(), b"x" * len(texts[damaged])))
    with pytest.raises(FastvaeError, match=rf"archive.zip/{damaged} cannot be read \(Bad CRC-32 .*download it again"):
        read_celeba(tmp_path / "archive.zip")


def test_a_zip_file_of_other_pictures(tmp_path):
    write_celeba_lists(tmp_path)
    with zipfile.ZipFile(tmp_path / "flowers.zip", "w") as opened:
        opened.writestr("rose.jpg", b"")
    assert not find_places(tmp_path / "flowers.zip").are_complete


def test_parts_of_a_7z_archive(tmp_path):
    for number in (1, 2, 3, 4):
        (tmp_path / "Img").mkdir(exist_ok=True)
        (tmp_path / f"Img/img_align_celeba_png.7z.{number:03}").touch()
    write_celeba_lists(tmp_path / "Anno")
    for given in (tmp_path, tmp_path / "Img"):
        assert not find_places(given).are_complete
        with pytest.raises(
            FastvaeError,
            match=r"contains no pictures .*4 7z archives, which are not read \(unpack them, as by `7z x "
            r"img_align_celeba_png.7z.001`\) \(\S*img_align_celeba_png.7z.001, .*\.\.\.\)",
        ):
            read_source(given)
    (tmp_path / "one.7z.001").write_bytes(b"7z\xbc\xaf\x27\x1c")
    with pytest.raises(FastvaeError, match=r"one.7z.001 is a 7z archive, which is not read; unpack it"):
        read_source(tmp_path / "one.7z.001")


@pytest.mark.parametrize(
    ("folder", "sizes", "form", "warning"),
    [
        ("img_align_celeba", [(178, 218)] * 3, "aligned, 178x218", None),
        ("img_celeba", [(409, 687), (423, 600), (500, 606)], "in the wild", "not aligned .*wherever the face is"),
        ("pictures", [(409, 687), (423, 600), (500, 606)], "in the wild", "not aligned"),
        ("pictures", [(64, 64)] * 3, "64x64", None),
        ("pictures", [(89, 109)] * 3, "89x109", "not CelebA's own pictures of 178x218: the largest centred square"),
    ],
)
def test_the_form_is_told_by_the_sizes(tmp_path, folder, sizes, form, warning):
    (tmp_path / folder).mkdir()
    for number, size in enumerate(sizes, 1):
        photo(*size).save(tmp_path / folder / f"{number:06}.jpg")
    write_celeba_lists(tmp_path)
    source = read_celeba(tmp_path / folder)
    assert source.form == form
    assert [bool(re.search(warning, text)) for text in source.warnings] == [True] if warning else not source.warnings


def test_a_few_pictures_that_are_not_in_the_lists_are_left_out(tmp_path):
    numbers = range(1, 200)
    touch_celeba_pictures(tmp_path, numbers)
    rows = "".join(f"{number:06}.jpg 1\n" for number in numbers)
    write_celeba_lists(tmp_path, attributes=f"199\nBald\n{rows}", splits=rows.replace(" 1", " 0"))
    for name in ("montage.jpg", "000007.png"):
        (tmp_path / name).touch()
    source = read_celeba(tmp_path)
    assert source.names == [f"{number:06}.jpg" for number in numbers]
    assert source.left_out == {
        "of which another file has the number": ["000007.png"],
        "not in list_attr_celeba.txt": ["montage.jpg"],
    }
    for number in (1, 2, 3):
        (tmp_path / f"mine_{number}.jpg").touch()
    with pytest.raises(FastvaeError, match=r"4 of 203 pictures in .* are not in list_attr_celeba.txt .*download it"):
        read_celeba(tmp_path)


def test_pictures_that_are_only_in_the_lists_are_counted(tmp_path):
    touch_celeba_pictures(tmp_path, (1,))
    write_celeba_lists(tmp_path)
    note = "2 pictures of list_eval_partition.txt are not there (000002.jpg, 000003.jpg)"
    assert note in read_celeba(tmp_path).notes


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
    with pytest.raises(FastvaeError, match=r"neither list_attr_celeba.txt nor .*faces and the three folders above it"):
        read_celeba(tmp_path / "a/b/faces")
    with pytest.raises(FastvaeError, match=r"neither list_attr_celeba.txt nor"):
        read_celeba(tmp_path / "a/b/faces", annotations=tmp_path)
    with pytest.raises(FastvaeError, match=r"--annotations .* must be a folder"):
        read_celeba(tmp_path / "a/b/faces", annotations=tmp_path / "none")


def test_a_zip_file_that_was_not_downloaded_completely_is_named(tmp_path):
    (tmp_path / "Img").mkdir()
    zip_pictures(tmp_path / "Img/img_align_celeba.zip", "img_align_celeba/")
    write_celeba_lists(tmp_path / "Anno")
    with (tmp_path / "Img/img_align_celeba.zip").open("r+b") as file:
        file.truncate(200)
    with pytest.raises(FastvaeError, match=r"img_align_celeba.zip is damaged, truncated.*download it again"):
        read_source(tmp_path)


def test_a_zip_file_inside_a_tar_file_is_not_read_for_it(tmp_path):
    """Stored last, its list is where a zip file's own would be."""
    zip_pictures(tmp_path / "inner.zip", "img_align_celeba/")
    write_celeba_lists(tmp_path)
    members = [("000009.jpg", b"x"), ("inner.zip", (tmp_path / "inner.zip").read_bytes())]
    write_members(tmp_path / "outer.tar", members)
    assert zipfile.is_zipfile(tmp_path / "outer.tar")
    assert read_source(tmp_path / "outer.tar").names == ["000009.jpg"]


def test_no_pictures(tmp_path):
    write_celeba_lists(tmp_path)
    with pytest.raises(FastvaeError, match="contains no pictures"):
        read_celeba(tmp_path)
