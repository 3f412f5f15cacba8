"""Where the cache folder is."""

from pathlib import Path

from fastvae.cache import cache_folder


def test_precedence(monkeypatch):
    monkeypatch.setenv("FASTVAE_CACHE", "/somewhere")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert cache_folder() == Path("/somewhere")
    monkeypatch.delenv("FASTVAE_CACHE")
    assert cache_folder() == Path("/xdg/fastvae")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "fastvae"


def test_home_is_expanded(monkeypatch):
    monkeypatch.setenv("FASTVAE_CACHE", "~/weights")
    assert cache_folder() == Path.home() / "weights"
