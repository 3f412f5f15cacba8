"""Compiling the engine: once, whole, and with words when it fails."""

import logging
import stat
import time
from pathlib import Path

import pytest

from fastvae.errors import FastvaeError
from fastvae.native import library

FLAGS = ("-O0", "-DFASTVAE_LANES=4")
pytestmark = pytest.mark.skipif(library.host_compiler() is None, reason="needs a C++ compiler")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FASTVAE_CACHE", str(tmp_path))
    library.library.cache_clear()
    yield tmp_path / "native"
    library.library.cache_clear()


def fake_compiler(path: Path, script: str) -> Path:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IEXEC)
    return path


def test_it_is_compiled_once_and_announced(cache, monkeypatch, caplog):
    with caplog.at_level(logging.INFO, "fastvae"):
        assert library.library(FLAGS).fastvae_lanes() == 4
        library.library.cache_clear()  # as a second process would come
        start = time.perf_counter()
        assert library.library(FLAGS).fastvae_lanes() == 4
        again_s = time.perf_counter() - start
    (words,) = [r.getMessage() for r in caplog.records]
    assert "compiled the CPU engine with" in words and " s: " in words
    assert [p.suffix for p in cache.iterdir()] == [".so"] and again_s < 1


def test_other_flags_and_other_sources_are_another_file(cache, monkeypatch):
    command = [library.host_compiler(), *library._FLAGS]
    digest = library._digest(command)
    assert library._digest([*command, "-DX"]) != digest
    monkeypatch.setattr(library, "_SOURCES", library._SOURCES[1:])
    assert library._digest(command) != digest


def test_every_source_counts():
    folder = Path(library.__file__).parent
    assert {p.name for p in folder.iterdir() if p.suffix in (".cpp", ".h")} == set(library._SOURCES)


def test_a_failing_compiler_is_quoted(cache, monkeypatch, tmp_path):
    cxx = fake_compiler(tmp_path / "cxx", "echo 'engine.cpp: no such luck' >&2; exit 1")
    monkeypatch.setenv("CXX", str(cxx))
    with pytest.raises(FastvaeError, match=r"could not compile the engine: engine\.cpp: no such luck"):
        library.library()
    assert not cache.exists() or not list(cache.iterdir())


def test_no_compiler(cache, monkeypatch):
    monkeypatch.setattr(library, "host_compiler", lambda: None)
    with pytest.raises(FastvaeError, match="no C\\+\\+ compiler"):
        library.library()


def test_a_cache_that_cannot_be_written(cache, monkeypatch):
    cache.write_text("a file where the folder should be")
    with pytest.raises(FastvaeError, match="cannot be kept"):
        library.library(FLAGS)
