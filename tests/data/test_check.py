"""`fastvae prepare --check FILE`, and the paths of `fastvae prepare`."""

import os

import numpy as np
import pytest

from fastvae.cli import main
from fastvae.data.packed import PackedWriter
from tests.data.pictures import save_photos


@pytest.fixture
def file(tmp_path):
    with PackedWriter(tmp_path / "set.fvae", image_size=8, attribute_names=("A",)) as writer:
        writer.append(np.zeros((5, 8, 8, 3), np.uint8), splits=np.array([0, 0, 0, 1, 2]), attributes=np.ones((5, 1)))
        writer.info = {"kind": "folder", "source": "photos\n"}
    return tmp_path / "set.fvae"


def test_an_undamaged_file(file, capsys):
    assert main(["prepare", "--check", str(file)]) == 0
    out = capsys.readouterr().out
    assert f"{file}: 5 images of 8x8 (3 train, 1 validation, 1 test), 1 attributes" in out
    assert r"kind folder; source photos\n" in out and "every block matches its checksum" in out


def test_one_wrong_bit(file, capsys):
    data = bytearray(file.read_bytes())
    data[65536 + 100] ^= 1
    file.write_bytes(data)
    assert main(["prepare", "--check", str(file)]) == 1
    captured = capsys.readouterr()
    assert "the images block does not match its checksum" in captured.err and "every block" not in captured.out


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--check", "nothing.fvae"], 1, "does not exist"),
        (["--check", "."], 1, "is a folder"),
        (["--check", "photos/1.png"], 1, "is not a packed file"),
        (["--check", "set.fvae", "photos", "out"], 2, "leave SOURCE and OUT out"),
        (["--check", "set.fvae", "--image-size", "32", "--overwrite"], 2, "leave the other flags out"),
        (["photos", "out", "--crop", "whole", "--box", "0", "0", "9", "9"], 2, "leave one of them out"),
        (["--check", ""], 2, "a path is empty"),
        (["", "out"], 2, "a path is empty"),
        (["photos", ""], 2, "a path is empty"),
        (["photos"], 2, "prepare SOURCE OUT"),
        ([], 2, "prepare SOURCE OUT"),
        (["photos", "~no-user-of-this-name/out"], 2, "home folder is not known"),
        (["photos", "out", "--annotations", ""], 2, "a path is empty"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(file, tmp_path, monkeypatch, capsys, arguments, code, message):
    save_photos(tmp_path / "photos", ["1.png", "2.png"])
    monkeypatch.chdir(tmp_path)
    assert main(["prepare", *arguments]) == code
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and message in lines[0]


def test_names_that_are_not_utf8(tmp_path, monkeypatch, capsys):
    source, out = os.fsdecode(b"bilder-\xfc"), os.fsdecode(b"out-\xfc.fvae")
    save_photos(tmp_path / source, ["1.png", "2.png"])
    monkeypatch.chdir(tmp_path)
    for arguments in ([source, out], ["--check", out]):
        assert main(["prepare", *arguments]) == 0
    assert r"out-\xfc.fvae" in capsys.readouterr().out
