"""Where the cache folder is, and what serves where it cannot be had."""

import logging
import os
import tempfile
from pathlib import Path

import pytest

from fastvae.errors import FastvaeError
from fastvae.files import cache


@pytest.fixture(autouse=True)
def _nothing_remembered(monkeypatch):
    cache._instead_of.cache_clear()
    yield
    cache._instead_of.cache_clear()


@pytest.fixture
def temporary(tmp_path, monkeypatch) -> Path:
    """The system's temporary folder."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def test_precedence(tmp_path, monkeypatch):
    monkeypatch.setenv("FASTVAE_CACHE", str(tmp_path / "own"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache.cache_folder() == tmp_path / "own"
    monkeypatch.delenv("FASTVAE_CACHE")
    assert cache.cache_folder() == tmp_path / "xdg" / "fastvae"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache.cache_folder() == tmp_path / "home" / ".cache" / "fastvae"
    assert cache.cache_folder().is_dir()


def test_home_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("FASTVAE_CACHE", "~/weights")
    assert cache.cache_folder() == tmp_path / "weights"


def test_a_kept_file_is_found_where_nothing_can_be_written(tmp_path, temporary, monkeypatch):
    monkeypatch.setenv("FASTVAE_CACHE", str(tmp_path / "own"))
    assert cache.kept_file("weights.bin") is None
    (tmp_path / "own" / "weights.bin").touch()
    monkeypatch.setattr(cache, "_obstacle", lambda folder: "cannot be written")
    assert cache.kept_file("weights.bin") == tmp_path / "own" / "weights.bin"
    assert cache.kept_file("others.bin") is None


def test_a_named_folder_that_cannot_be_made_is_refused(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("FASTVAE_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(FastvaeError, match="FASTVAE_CACHE"):
        cache.cache_folder()


def test_a_private_temporary_folder_serves_in_place_of_the_home_folder(tmp_path, temporary, monkeypatch, caplog):
    (tmp_path / "file").touch()
    monkeypatch.delenv("FASTVAE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with caplog.at_level(logging.WARNING, "fastvae"):
        folder = cache.cache_folder()
        assert cache.cache_folder() == folder
    assert folder.parent == temporary and folder.stat().st_mode & 0o777 == 0o700
    assert len(caplog.records) == 1


def test_without_any_home_folder(temporary, monkeypatch):
    pwd = pytest.importorskip("pwd")
    for name in ("FASTVAE_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", lambda uid: (_ for _ in ()).throw(KeyError(uid)))
    assert cache.cache_folder().parent == temporary


def test_a_temporary_folder_that_others_can_write_is_not_trusted(temporary):
    folder = temporary / f"fastvae-{os.getuid()}"
    folder.mkdir()
    folder.chmod(0o777)
    with pytest.raises(FastvaeError, match="only this user"):
        cache.temporary_cache()


def test_a_temporary_folder_that_is_a_link_is_not_trusted(temporary):
    (temporary / "elsewhere").mkdir(mode=0o700)
    (temporary / f"fastvae-{os.getuid()}").symlink_to(temporary / "elsewhere")
    with pytest.raises(FastvaeError, match="only this user"):
        cache.temporary_cache()
