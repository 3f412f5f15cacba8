"""Files are complete or not there; what a killed process leaves is found and removed, and nothing else is."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fastvae.errors import FastvaeError, UsageError
from fastvae.files.atomic_write import atomic_file, check_writable, write_atomically

WRITER = """
import pathlib, sys
from fastvae.files.atomic_write import atomic_file
with atomic_file(pathlib.Path(sys.argv[1])) as temporary:
    temporary.write_text("half")
    print(temporary, flush=True)
    sys.stdin.read()
"""


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_written_or_not_there(tmp_path):
    path = tmp_path / "new" / "file.txt"
    write_atomically(path, "text")
    assert path.read_text() == "text"
    with pytest.raises(ZeroDivisionError), atomic_file(path) as temporary:
        temporary.write_text("half")
        raise ZeroDivisionError
    assert path.read_text() == "text"
    assert names(path.parent) == {"file.txt"}


def test_what_a_killed_process_leaves_is_removed_by_the_next_writer_and_nothing_else(tmp_path):
    others = {".fastvae-notes.part", "step.part", ".fastvae-0123456789abcdef.part.bak.gz", "file.tmp-123"}
    for name in others:
        (tmp_path / name).touch()
    target = tmp_path / "file.txt"
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, target], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as writer:
        left = Path(writer.stdout.readline().strip())
        write_atomically(tmp_path / "other.txt", "text")
        assert left.exists(), "its process is alive"
        writer.send_signal(signal.SIGKILL)
    write_atomically(tmp_path / "other.txt", "text")
    assert names(tmp_path) == {*others, "other.txt"}


def test_a_link_is_followed(tmp_path):
    (tmp_path / "real.txt").write_text("old")
    (tmp_path / "link.txt").symlink_to("real.txt")
    write_atomically(tmp_path / "link.txt", "new")
    assert (tmp_path / "link.txt").is_symlink() and (tmp_path / "real.txt").read_text() == "new"


def test_a_long_name_and_one_that_is_not_utf8(tmp_path):
    for name in ("x" * 255, os.fsdecode(b"\xfc.txt")):
        write_atomically(tmp_path / name, "text")
        assert (tmp_path / name).read_text() == "text"


def test_full_disk(small_disk):
    path = small_disk / "file.bin"
    write_atomically(path, b"whole")
    with pytest.raises(FastvaeError, match="No space left"):
        write_atomically(path, bytes(4 << 20))
    assert path.read_bytes() == b"whole" and names(small_disk) == {"file.bin"}


def test_refused_before_the_work(tmp_path):
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "file" / "x.png", tmp_path / "pipe", tmp_path / ("y" * 256)):
        with pytest.raises(UsageError, match="--out"):
            check_writable(path)
    check_writable(tmp_path / "file")
    check_writable(tmp_path / "to" / "be" / "made.png")
