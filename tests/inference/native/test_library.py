"""Compiling the engine: once, whole, verified, and with words when it fails."""

import ctypes
import dataclasses
import logging
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from fastvae import native_library as library
from fastvae.errors import FastvaeError
from fastvae.inference.native.library import SOURCES
from fastvae.inference.native.library import library as load_engine
from fastvae.kernels import winograd

FLAGS = ("-O0", "-DFASTVAE_LANES=4")
LOAD = f"from fastvae.inference.native.library import library; assert library({FLAGS!r}).fastvae_lanes() == 4"
pytestmark = pytest.mark.skipif(library.host_compiler() is None, reason="needs a C++ compiler")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The folder in which the engine is kept; a temporary folder of the test's own is the other place."""
    monkeypatch.setenv("FASTVAE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    library._loaded.cache_clear()
    yield tmp_path / "cache" / "native"
    library._loaded.cache_clear()


@pytest.fixture(scope="module")
def compiled(tmp_path_factory) -> Path:
    """A kept engine, for tests to copy."""
    folder = tmp_path_factory.mktemp("compiled")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FASTVAE_CACHE", str(folder))
        library._loaded.cache_clear()
        load_engine(FLAGS)
        library._loaded.cache_clear()
    (engine,) = (folder / "native").iterdir()
    return engine


@pytest.fixture
def kept(cache, compiled) -> Path:
    """The same, in the cache."""
    cache.mkdir(parents=True)
    return Path(shutil.copy(compiled, cache))


@pytest.fixture
def compilations(compiled, monkeypatch):
    """One entry for each time that the compiler is asked for an engine; it gives the one that it made before."""
    asked = []
    monkeypatch.setattr(library, "_compiled", lambda _, command: asked.append(command) or compiled.read_bytes())
    return asked


def private_engines() -> list[Path]:
    return list(Path(tempfile.gettempdir()).glob("fastvae-*/native/engine-*.so"))


def fake_compiler(path: Path, script: str) -> str:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IEXEC)
    return str(path)


def test_it_is_compiled_once_and_announced(cache, monkeypatch, caplog):
    compilations, compile_ = [], library._compiled
    monkeypatch.setattr(library, "_compiled", lambda *made: compilations.append(made) or compile_(*made))
    with caplog.at_level(logging.INFO, "fastvae"):
        assert load_engine(FLAGS).fastvae_lanes() == 4
        library._loaded.cache_clear()  # as a second process would come
        assert load_engine(FLAGS).fastvae_lanes() == 4
    (words,) = [r.getMessage() for r in caplog.records]
    assert "compiled the CPU engine with" in words and " s: " in words
    assert [p.suffix for p in cache.iterdir()] == [".so"] and len(compilations) == 1
    assert not private_engines()


def test_other_flags_and_other_sources_are_another_file(cache):
    command = [library.host_compiler(), *library._FLAGS]
    digest = library._digest(SOURCES, command)
    assert library._digest(SOURCES, [*command, "-DX"]) != digest
    assert library._digest(dataclasses.replace(SOURCES, headers=SOURCES.headers[1:]), command) != digest


@pytest.mark.parametrize("sources", [SOURCES, winograd.SOURCES], ids=lambda sources: sources.name)
def test_every_included_file_counts(sources):
    files = [sources.entry, *sources.headers]
    included = {name for file in files for name in re.findall(r'#include "(.+)"', file.read_text())}
    assert included == {header.name for header in sources.headers}


DAMAGE = {
    "empty": lambda whole: b"",
    "cut short": lambda whole: whole[: len(whole) // 2],
    "a page is missing": lambda whole: whole[:-4096],
    "one bit": lambda whole: whole[:-1] + bytes([whole[-1] ^ 1]),
    "garbage": lambda whole: b"\x7fELF" + bytes(100_000),
    "another file": lambda whole: b"a page of the hotel's WLAN",
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_what_is_damaged_is_compiled_again_and_not_loaded(kept, compilations, damage, monkeypatch):
    good = kept.read_bytes()
    kept.write_bytes(damage(good))
    opened, open_ = [], ctypes.CDLL
    monkeypatch.setattr(ctypes, "CDLL", lambda path: opened.append(Path(path).read_bytes()) or open_(path))
    assert load_engine(FLAGS).fastvae_lanes() == 4
    assert len(compilations) == 1 and damage(good) not in opened
    (now,) = kept.parent.iterdir()
    assert now.stem.endswith(library._digest_of(now.read_bytes()))


def test_what_is_kept_and_good_is_loaded(kept, compilations):
    assert load_engine(FLAGS).fastvae_lanes() == 4
    assert not compilations


@pytest.mark.skipif(not hasattr(library.os, "geteuid"), reason="POSIX's permissions")
@pytest.mark.parametrize("what", ["file", "folder"])
def test_what_others_can_have_put_there_is_not_run(kept, compilations, what):
    place = kept if what == "file" else kept.parent
    place.chmod(0o777)
    assert load_engine(FLAGS).fastvae_lanes() == 4
    assert len(compilations) == 1


@pytest.mark.skipif(not hasattr(library.os, "geteuid"), reason="POSIX's permissions")
def test_a_folder_that_others_can_write_is_left_to_them(kept, compilations):
    kept.unlink()
    kept.parent.chmod(0o777)
    for _ in range(2):  # the second process finds what the first has compiled
        library._loaded.cache_clear()
        assert load_engine(FLAGS).fastvae_lanes() == 4
    assert len(compilations) == 1 and len(private_engines()) == 1 and not list(kept.parent.iterdir())


def test_whatever_the_umask_is_it_is_compiled_once(cache, compilations):
    before = os.umask(0)
    try:
        for _ in range(2):
            library._loaded.cache_clear()
            assert load_engine(FLAGS).fastvae_lanes() == 4
    finally:
        os.umask(before)
    assert len(compilations) == 1


def refuse_from(folder: Path, monkeypatch):
    """As from a file system that is mounted noexec."""
    open_ = ctypes.CDLL

    def opened(path):
        if Path(path).is_relative_to(folder):
            raise OSError(f"{path}: failed to map segment from shared object")
        return open_(path)

    monkeypatch.setattr(ctypes, "CDLL", opened)


@pytest.mark.parametrize("first", [True, False], ids=["new", "kept"])
def test_nothing_may_be_run_from_the_cache(cache, compiled, compilations, monkeypatch, first):
    if not first:
        cache.mkdir(parents=True)
        shutil.copy(compiled, cache)
    refuse_from(cache, monkeypatch)
    for _ in range(2):  # the second finds it in the private folder
        assert load_engine(FLAGS).fastvae_lanes() == 4
        library._loaded.cache_clear()
    (engine,) = private_engines()
    assert len(compilations) == 1
    # For the cause may be a change of the system, the one that cannot be opened stays.
    assert len(list(cache.iterdir())) == 1
    assert not hasattr(library.os, "geteuid") or not engine.parents[1].stat().st_mode & 0o077


def test_a_noexec_mount(cache):
    cache.parent.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "noexec,size=50m", "tmpfs", str(cache.parent)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs the right to mount")
    try:  # in a process of its own: one that may not map a library keeps it open
        env = {**library.os.environ, "TMPDIR": tempfile.gettempdir()}
        subprocess.run([sys.executable, "-c", LOAD], env=env, check=True)
        assert private_engines()
    finally:
        subprocess.run(["umount", str(cache.parent)], check=True)


@pytest.mark.parametrize("broken", ["cache", "native"])
def test_a_cache_that_cannot_be_written(cache, compilations, broken):
    path = cache if broken == "native" else cache.parent
    path.parent.mkdir(exist_ok=True)
    path.write_text("a file where the folder should be")
    assert load_engine(FLAGS).fastvae_lanes() == 4
    assert private_engines()


def test_no_place_at_all(cache, tmp_path, compilations, monkeypatch):
    refuse_from(tmp_path, monkeypatch)
    for _ in range(2):
        with pytest.raises(
            FastvaeError, match=r"engine cannot be loaded \(.*failed to map.*; .*failed to map"
        ) as caught:
            load_engine(FLAGS)
        assert "\n" not in str(caught.value)
    assert len(compilations) == 1  # what failed is not tried again


def test_a_failing_compiler_is_quoted(cache, monkeypatch, tmp_path):
    script = "echo 'In file included from x:' >&2; echo 'engine.cpp: error: no such luck' >&2; exit 1"
    monkeypatch.setenv("CXX", fake_compiler(tmp_path / "cxx", script))
    with pytest.raises(FastvaeError, match=r"could not compile the engine: engine\.cpp: error: no such luck$"):
        load_engine()
    assert not cache.exists() or not list(cache.iterdir())


FAKES = {
    "says nothing": ("exit 3", "could not compile the engine: status 3"),
    "is killed": ("kill -9 $$", "could not compile the engine: status -9"),
    "is no text": ("printf '\\377\\376' >&2; exit 1", "could not compile the engine"),
    "makes nothing": ("exit 0", "did not produce the engine"),
    "makes an empty file": ('while [ $# -gt 1 ]; do [ "$1" = -o ] && : > "$2"; shift; done', "engine cannot be loaded"),
    "hangs": ("cat /dev/zero > /dev/null & wait", "did not compile the engine within 0.5 s"),
}


@pytest.mark.parametrize("script, words", FAKES.values(), ids=FAKES.keys())
def test_broken_compilers(cache, monkeypatch, tmp_path, script, words):
    monkeypatch.setenv("CXX", fake_compiler(tmp_path / "cxx", script))
    if "within" in words:
        monkeypatch.setattr(library, "_TIMEOUT_S", 0.5)
    with pytest.raises(FastvaeError, match=words):
        load_engine()


def test_a_compiler_that_cannot_be_started(cache, monkeypatch, tmp_path):
    path = Path(fake_compiler(tmp_path / "cxx", ""))
    path.write_bytes(b"\x00 no program")
    monkeypatch.setenv("CXX", str(path))
    with pytest.raises(FastvaeError, match="cannot be started"):
        load_engine()


@pytest.mark.parametrize("when", ["asked for its macros", "compiling"])
def test_a_compiler_that_does_not_know_its_processor(cache, monkeypatch, tmp_path, when):
    """Or whose assembler does not: it compiles for any of its kind."""
    last = "engine.cpp" if when == "compiling" else library.os.devnull
    script = (
        f'native=no; for a in "$@"; do [ "$a" = {library._FOR_THIS_CPU} ] && native=yes; done\n'
        f'case "$native $*" in yes*{last}) echo "error: bad value native" >&2; exit 1;; esac\n'
        f'exec {library.host_compiler()} "$@"'
    )
    monkeypatch.setenv("CXX", fake_compiler(tmp_path / "cxx", script))
    assert load_engine(FLAGS).fastvae_lanes() == 4


def test_no_compiler(cache, monkeypatch):
    monkeypatch.setattr(library, "host_compiler", lambda: None)
    with pytest.raises(FastvaeError, match="no C\\+\\+ compiler"):
        load_engine()


def test_two_processes_at_once(cache):
    processes = [subprocess.Popen([sys.executable, "-c", LOAD], stderr=subprocess.PIPE) for _ in range(2)]
    assert [(p.communicate()[1], p.returncode) for p in processes] == [(b"", 0)] * 2
    assert {p.suffix for p in cache.iterdir()} == {".so"}
