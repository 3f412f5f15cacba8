"""What is taken for a picture, where links lead, and how what is left out is told."""

import os
import socket

import pytest

from fastvae.data.sources.listing import describe, is_jpeg, list_pictures
from fastvae.errors import FastvaeError
from tests.data.pictures import photo


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def left_out(folder):
    return {reason.split(" (")[0]: sorted(names) for reason, names in list_pictures(folder).left_out.items()}


def test_pictures_at_any_depth_in_order(tmp_path):
    touch(tmp_path, "b.PNG", "a/z.jpg", "a/b/c.webp", "a.jpeg", "d.bmp", "f.JFIF", "g.jpe", "x.jpg/y.jpg")
    touch(tmp_path, "notes.txt", "e.gif", "e.tiff", "labels/a.txt")
    names = ["a.jpeg", "a/b/c.webp", "a/z.jpg", "b.PNG", "d.bmp", "f.JFIF", "g.jpe", "x.jpg/y.jpg"]
    assert list_pictures(tmp_path).names == names
    assert left_out(tmp_path) == {
        "in formats that are not read": ["e.gif", "e.tiff"],
        "not pictures": ["labels/a.txt", "notes.txt"],
    }


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "BMP"])
def test_pictures_without_an_ending(tmp_path, form):
    for name in ("plain", "IMG.0001"):
        photo(8, 8).save(tmp_path / name, form)
    (tmp_path / "README").write_text("BMW, the cars\n" * 9)
    touch(tmp_path, "empty")
    assert list_pictures(tmp_path).names == ["IMG.0001", "plain"]
    assert left_out(tmp_path) == {"not pictures": ["README", "empty"]}
    assert is_jpeg(tmp_path / "plain") == (form == "JPEG")


def test_what_is_hidden_is_left_out(tmp_path):
    touch(tmp_path, "a.jpg", "._a.jpg", ".cache/b.jpg", "__MACOSX/a.jpg")
    assert list_pictures(tmp_path).names == ["a.jpg"]
    assert left_out(tmp_path) == {"hidden": ["._a.jpg", ".cache", "__MACOSX"]}


def test_links_are_followed_and_every_folder_is_read_once(tmp_path):
    touch(tmp_path / "elsewhere", "sub/3.jpg", "2.jpg")
    root = tmp_path / "root"
    touch(root, "real/1.jpg")
    (root / "a link").symlink_to(tmp_path / "elsewhere")
    (root / "again").symlink_to(tmp_path / "elsewhere/sub")
    (root / "0 first").symlink_to(root / "real")
    (root / "file.jpg").symlink_to(tmp_path / "elsewhere/2.jpg")
    (root / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    assert list_pictures(root).names == ["a link/2.jpg", "a link/sub/3.jpg", "file.jpg", "real/1.jpg"]
    assert left_out(root) == {
        "broken links": ["gone.jpg"],
        "links to folders that were read already": ["0 first", "again"],
    }


def test_links_in_a_circle(tmp_path):
    touch(tmp_path / "root", "a/a.jpg")
    touch(tmp_path, "not ours.jpg", "outside/b.jpg")
    links = {"a/again": "root", "a/self": "root/a", "up": ".", "out": "outside"}
    for link, target in links.items():
        (tmp_path / "root" / link).symlink_to(tmp_path / target)
    (tmp_path / "outside/back").symlink_to(tmp_path / "root")
    (tmp_path / "outside/home").symlink_to(tmp_path)
    (tmp_path / "root/loop.jpg").symlink_to(tmp_path / "root/loop.jpg")
    assert list_pictures(tmp_path / "root").names == ["a/a.jpg", "out/b.jpg"]
    assert left_out(tmp_path / "root") == {
        "links to a folder above": ["a/again", "a/self", "out/back", "out/home", "up"],
        "broken links": ["loop.jpg"],
    }


def test_pipes_sockets_and_devices_are_not_waited_for(tmp_path, monkeypatch):
    touch(tmp_path, "a.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    monkeypatch.chdir(tmp_path)  # the names of sockets are short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket.jpg")
        assert list_pictures(tmp_path).names == ["a.jpg"]
    names = [name for names in list_pictures(tmp_path).left_out.values() for name in names]
    assert sorted(names) == ["pipe", "pipe.jpg", "socket.jpg", "zero.png"]


def test_a_folder_that_may_not_be_looked_into(tmp_path, monkeypatch):
    touch(tmp_path, "a.jpg", "closed/b.jpg")
    scandir = os.scandir

    def refusing(path):
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    assert list_pictures(tmp_path).names == ["a.jpg"]
    assert left_out(tmp_path) == {"folders without read permission": ["closed"]}
    with pytest.raises(FastvaeError, match=r"closed cannot be read \(Permission denied\)"):
        list_pictures(tmp_path / "closed")


def test_names_of_all_bytes(tmp_path):
    names = [os.fsdecode(name) for name in (b"a\xfc.jpg", b"b\n.jpg", b"d\xff/c.jpg")]
    touch(tmp_path, *names, os.fsdecode(b"n\xfc\n.txt"))
    listing = list_pictures(tmp_path)
    assert listing.names == names
    assert describe(listing.left_out) == r"left out: 1 not pictures (n\xfc\n.txt)"


@pytest.mark.parametrize("names", [(), ("notes.txt", "a.gif", ".hidden.jpg")])
def test_no_pictures(tmp_path, names):
    touch(tmp_path, *names)
    with pytest.raises(FastvaeError, match="contains no pictures") as error:
        list_pictures(tmp_path)
    assert all(name in str(error.value) for name in names)


def test_a_few_are_named(tmp_path):
    touch(tmp_path, "a.jpg", *[f"{number:02}.txt" for number in range(30)], "x.gif")
    assert describe(list_pictures(tmp_path).left_out) == (
        "left out: 1 in formats that are not read (save them as PNG or JPEG) (x.gif), "
        "30 not pictures (00.txt, 01.txt, 02.txt, ...)"
    )
