import pytest
from PIL import Image

from fastvae.data.sources.detect import read_source
from fastvae.errors import FastvaeError, UsageError
from tests.data.layouts import (
    packed_tar,
    touch_celeba_pictures,
    write_celeba_lists,
    write_cifar100,
    write_cifar_binary,
    write_cifar_folders,
    write_cifar_pickles,
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
        (write_cifar_pickles, "cifar10"),
        (write_cifar100, "cifar100"),
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
        ("zip", "unknown kind of data set 'zip'; choose from auto, celeba, cifar10, cifar100, folder"),
    ],
)
def test_unknown_kinds(tmp_path, kind, message):
    with pytest.raises(UsageError, match=message):
        read_source(tmp_path, kind=kind)


def test_annotations_for_another_kind(tmp_path):
    with pytest.raises(UsageError, match="--annotations is for CelebA; got --kind folder"):
        read_source(tmp_path, kind="folder", annotations=tmp_path)


def test_paths_that_are_no_folder(tmp_path):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(FastvaeError, match=r"notes.txt is neither a folder of images nor a zip, tar or Parquet file"):
        read_source(tmp_path / "notes.txt")
    (tmp_path / "notes.txt").unlink()
    with pytest.raises(FastvaeError, match="nothing does not exist"):
        read_source(tmp_path / "nothing")
    with pytest.raises(FastvaeError, match="contains no pictures"):
        read_source(tmp_path)


def archived(write, archive, prefix):
    """Writes a data set as a .tar or .tar.gz file; returns its path."""

    def write_archive(folder):
        write(folder / "files")
        return packed_tar(folder / "files", folder / archive, prefix)

    return write_archive


def write_kaggle(folder):
    save_photos(folder / "img_align_celeba/img_align_celeba", [f"{number:06}.jpg" for number in (1, 2, 4)], **ALIGNED)
    rows = "".join(f"{number:06}.jpg,{number % 3}\n" for number in range(1, 10_001))
    (folder / "list_eval_partition.csv").write_text(f"image_id,partition\n{rows}")
    (folder / "list_attr_celeba.csv").write_text(
        f"image_id,Bald,Smiling\n{rows.replace(',', ',1,').replace(',2', ',0')}"
    )
    (folder / "list_bbox_celeba.csv").touch()


def write_wild(folder):
    for number, size in enumerate([(40, 50), (60, 50), (30, 70)], 1):
        save_photos(folder / "img_celeba", [f"{number:06}.jpg"], width=size[0], height=size[1])
    write_celeba_lists(folder)


def write_classes(folder):
    save_photos(folder, ["Train/b/1.png", "Test/a/2.png", "Test/a/notes.txt.png"])
    (folder / "Test/a/notes.txt").touch()
    (folder / "Test/a/x.gif").touch()
    (folder / "more.zip").touch()


ALIGNED = {"width": 178, "height": 218}
CIFAR10_COUNTS = "18 pictures; 15 train, 0 validation, 3 test (test_batch is test, the rest train); 10 classes"
CIFAR100_COUNTS = "6 pictures; 3 train, 0 validation, 3 test (test is test, the rest train); 100 classes"


@pytest.mark.parametrize(
    ("write", "said"),
    [
        (
            write_kaggle,
            """: read as CelebA, aligned, 178x218: 3 pictures; 0 train, 2 validation, 1 test \
(list_eval_partition.csv); 2 attributes (Bald, Smiling)
  pictures from img_align_celeba/img_align_celeba; attributes from list_attr_celeba.csv; splits from \
list_eval_partition.csv
  9,997 pictures of list_eval_partition.csv are not there (000003.jpg, 000005.jpg, 000006.jpg, ...)
  not used: list_bbox_celeba.csv""",
        ),
        (
            write_wild,
            """: read as CelebA, in the wild: 3 pictures; 1 train, 1 validation, 1 test (list_eval_partition.txt); \
2 attributes (Bald, Smiling)
  pictures from img_celeba; attributes from list_attr_celeba.txt; splits from list_eval_partition.txt
WARNING   these are CelebA's pictures in the wild, not aligned and of different sizes: unless another crop is chosen, \
the largest centred square of each is used, wherever the face is; the paper uses the aligned ones, img_align_celeba""",
        ),
        (
            write_classes,
            """: read as a plain folder of pictures: 3 pictures; 1 train, 0 validation, 2 test (folders Test, Train); \
2 classes (a, b)
WARNING   left out: 1 archives (unpack them; a .zip or .tar can also be given by its own path) (more.zip), \
1 in formats that are not read (save them as PNG or JPEG) (Test/a/x.gif), 1 not pictures (Test/a/notes.txt)""",
        ),
        (
            lambda folder: save_photos(folder, [f"{number:02}.png" for number in range(40)], width=8, height=8),
            ": read as a plain folder of pictures: 40 pictures; 38 train, 2 validation, 0 test "
            "(every 20th picture in sorted order is validation, the rest train); no classes",
        ),
        (write_cifar_binary, f": read as CIFAR-10, binary version: {CIFAR10_COUNTS} (airplane, automobile, bird, ...)"),
        (
            write_cifar_pngs,
            f": read as CIFAR-10, one PNG per batch: {CIFAR10_COUNTS} (airplane, automobile, bird, ...)",
        ),
        (
            archived(write_cifar_pickles, "cifar-10-python.tar.gz", "cifar-10-batches-py"),
            f"/cifar-10-python.tar.gz: read as CIFAR-10, python version: {CIFAR10_COUNTS} "
            "(airplane, automobile, bird, ...)",
        ),
        (
            lambda folder: write_cifar_pickles(folder / "cifar-10-batches-py"),
            f": read as CIFAR-10, python version: {CIFAR10_COUNTS} (airplane, automobile, bird, ...)\n"
            "  read from cifar-10-batches-py",
        ),
        (
            write_cifar_folders,
            ": read as CIFAR-10, class folders: 30 pictures; 20 train, 0 validation, 10 test (folders test, train); "
            "10 classes (airplane, automobile, bird, ...)",
        ),
        (
            archived(write_cifar100, "cifar-100-python.tar.gz", "cifar-100-python"),
            f"/cifar-100-python.tar.gz: read as CIFAR-100, python version: {CIFAR100_COUNTS} "
            "(class_00, class_01, class_02, ...)",
        ),
    ],
)
def test_the_report(tmp_path, caplog, write, said):
    given = write(tmp_path) or tmp_path
    with caplog.at_level("INFO", "fastvae"):
        read_source(given)
    levels = {"INFO": "", "WARNING": "WARNING "}
    lines = [f"{levels[record.levelname]}{record.getMessage()}" for record in caplog.records]
    assert "\n".join(lines) == f"{tmp_path}{said}"


def test_a_given_kind_of_cifar(tmp_path):
    archive = archived(write_cifar100, "other.tgz", "cifar")(tmp_path)
    with pytest.raises(FastvaeError, match=r"other.tgz is compressed \(gzip\)"):
        read_source(archive)
    archive = archive.rename(tmp_path / "cifar100.tgz")
    assert read_source(archive).kind == read_source(archive, kind="cifar100").kind == "cifar100"
    with pytest.raises(FastvaeError, match=r"cifar100.tgz does not contain CIFAR-10: expected data_batch_1.bin"):
        read_source(archive, kind="cifar10")


def test_what_is_left_out_is_said(tmp_path, caplog):
    save_photos(tmp_path, ["a.png", "b.png"])
    (tmp_path / "notes.txt").touch()
    with caplog.at_level("INFO", "fastvae"):
        read_source(tmp_path)
    assert {record.levelname for record in caplog.records} == {"INFO"} and "1 not pictures (notes.txt)" in caplog.text
    (tmp_path / "more.parquet").touch()
    read_source(tmp_path)
    assert caplog.records[-1].levelname == "WARNING" and "1 Parquet files (give them" in caplog.text
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
    assert (
        "but list_eval_partition (.txt or .csv) is not in, beside or above it "
        f"({tmp_path}/a/list_attr_celeba.txt is not used without the other): read without" in caplog.text
    )
    caplog.clear()
    read_source(folder, kind="folder")
    Image.new("RGB", (64, 64)).save(folder / "000000.jpg")
    read_source(folder)
    assert not caplog.records


def test_lists_of_celeba_beside_other_pictures_are_said_to_be_unused(tmp_path):
    save_photos(tmp_path / "flowers", ["rose.jpg", "tulip.jpg"])
    write_celeba_lists(tmp_path)
    source = read_source(tmp_path / "flowers")
    assert source.kind == "folder"
    assert source.notes == (
        "CelebA's lists are not used, since the pictures are not named as in them: "
        f"{tmp_path}/list_attr_celeba.txt and {tmp_path}/list_eval_partition.txt",
    )
