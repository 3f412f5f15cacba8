"""Paths that people give: expanded, absolute, refused where they lead nowhere."""

import os
from pathlib import Path

import pytest

from fastvae.errors import UsageError
from fastvae.files.places import is_file, is_folder, resolved, shown


def test_home_is_expanded(monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    assert resolved("~/runs/a") == Path("/home/somebody/runs/a")


def test_a_path_means_the_same_from_another_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = resolved("data/../set.fvae")
    monkeypatch.chdir("/")
    assert path == tmp_path / "set.fvae"


def test_links_stay_links(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert resolved(tmp_path / "link") == tmp_path / "link"


def test_a_name_that_is_not_utf8(tmp_path):
    name = os.fsdecode(b"lauf-\xfc")
    assert os.fsencode(resolved(tmp_path / name)).endswith(b"lauf-\xfc")


@pytest.mark.parametrize("given", ["", "  ", "a\x00b", "~nobody-of-this-name/x", None, 3, ["a"]])
def test_what_leads_nowhere_is_refused(given):
    with pytest.raises(UsageError):
        resolved(given)


def test_without_any_home_folder(monkeypatch):
    monkeypatch.delenv("HOME", raising=False)
    pwd = pytest.importorskip("pwd")
    monkeypatch.setattr(pwd, "getpwuid", lambda uid: (_ for _ in ()).throw(KeyError(uid)))
    with pytest.raises(UsageError, match="home"):
        resolved("~/x")


def test_what_lies_there_is_asked_without_errors(tmp_path):
    (tmp_path / "file").touch()
    assert is_folder(tmp_path) and not is_folder(tmp_path / "file")
    assert is_file(tmp_path / "file") and not is_file(tmp_path)
    for nowhere in (tmp_path / "x", tmp_path / "file" / "x", tmp_path / ("x" * 5000), "a\x00b"):
        assert not is_folder(nowhere) and not is_file(nowhere)


def test_names_as_messages_show_them():
    assert shown(Path("/data/naïve 名.jpg")) == "/data/naïve 名.jpg"
    assert shown(os.fsdecode(b"a\xfc\n\x1b[31m.jpg")) == r"a\xfc\n\x1b[31m.jpg"
    assert shown("\ud800\u2028") == r"\ud800\u2028"
