"""`prepare`, `train --dry-run` and training say the same about what they read."""

import pytest

from fastvae.cli import main
from tests.data.layouts import packed_tar, write_celeba_lists, write_cifar_pickles
from tests.data.pictures import save_photos
from tests.train.conftest import SMALL


def write_celeba(folder):
    save_photos(folder / "img_celeba", ["000001.jpg", "000002.jpg", "000003.png"], width=30, height=40)
    (folder / "img_celeba/x.gif").touch()
    write_celeba_lists(folder, splits="000001.jpg 0\n000002.jpg 0\n000003.jpg 1\n")
    return folder


def write_cifar(folder):
    write_cifar_pickles(folder / "files")
    return packed_tar(folder / "files", folder / "cifar-10-python.tar.gz", "cifar-10-batches-py")


@pytest.mark.parametrize(
    ("write", "first", "more"),
    [
        (
            write_celeba,
            "read as CelebA, in the wild: 3 pictures",
            (
                "  pictures from img_celeba; ",
                "  left out: 1 in formats that are not read",
                "  these are CelebA's pictures",
            ),
        ),
        (write_cifar, "read as CIFAR-10, python version: 18 pictures", ()),
    ],
)
def test_prepare_and_train_say_what_they_read(tmp_path, monkeypatch, capfd, write, first, more):
    monkeypatch.setenv("FASTVAE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "data").mkdir()
    data = str(write(tmp_path / "data"))
    reports = []
    for command in (
        ["prepare", data, str(tmp_path / "out.fvae"), "--image-size", "32", "--decoder", "pillow"],
        ["train", "celeba64", "--data", data, *SMALL, "--image-size", "32", "--batch-size", "2", "--dry-run"],
    ):
        assert main(command) == 0
        lines = capfd.readouterr().err.splitlines()
        at = next(number for number, line in enumerate(lines) if first in line)
        reports.append(lines[at : at + 1 + len(more)])
    assert reports[0] == reports[1]
    assert all(line.startswith(begin) for line, begin in zip(reports[0][1:], more, strict=True))


@pytest.mark.parametrize(
    ("size", "warning", "last"),
    [
        ("24", "", "--image-size 24"),
        ("100", "will need --stages", "--image-size 100 --stages N"),
        ("33", "will refuse these images", "no network can be trained"),
    ],
)
def test_prepare_says_which_sizes_the_networks_do_not_take_by_themselves(tmp_path, capfd, size, warning, last):
    save_photos(tmp_path / "data", ["1.png", "2.png"])
    flags = [str(tmp_path / "data"), str(tmp_path / "out.fvae"), "--image-size", size, "--decoder", "pillow"]
    assert main(["prepare", *flags]) == 0
    out, err = capfd.readouterr()
    assert ("`fastvae train`" in err) == bool(warning) and warning in err
    assert out.rstrip().endswith(last)
