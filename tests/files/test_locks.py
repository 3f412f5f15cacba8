"""Locks end with their process, however that ends."""

import errno
import os
import signal
import subprocess
import sys

import pytest

from fastvae.files import locks
from fastvae.files.atomic_write import remove_abandoned

HOLDER = """
import os, sys
from fastvae.files import locks
descriptor = os.open(sys.argv[1], os.O_RDONLY)
assert locks.try_lock(descriptor, shared=sys.argv[2] == "shared")
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def held(tmp_path):
    """Starts a process that holds a lock on the folder."""
    processes = []

    def start(kind: str) -> subprocess.Popen:
        command = [sys.executable, "-c", HOLDER, tmp_path, kind]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        processes.append(process)
        assert process.stdout.readline() == "held\n"
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def can_lock(folder, shared: bool) -> bool:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        return locks.try_lock(descriptor, shared=shared)
    finally:
        os.close(descriptor)


def test_without_locks_a_file_that_may_be_in_use_stays(tmp_path, monkeypatch):
    """As on a network file system that has none."""

    def missing(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(locks.fcntl, "flock", missing)
    assert can_lock(tmp_path, shared=False)
    part = tmp_path / ".fastvae-0123456789abcdef.part"
    part.touch()
    remove_abandoned(tmp_path)
    assert part.exists()
    monkeypatch.undo()
    remove_abandoned(tmp_path)
    assert not part.exists()


def test_an_exclusive_lock_ends_with_a_killed_process(tmp_path, held):
    process = held("exclusive")
    assert not can_lock(tmp_path, shared=False) and not can_lock(tmp_path, shared=True)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert can_lock(tmp_path, shared=False)


def test_readers_keep_a_folder_from_being_removed(tmp_path, held):
    held("shared")
    with locks.reading(tmp_path), locks.removing(tmp_path) as free:
        assert not free


def test_a_free_folder_may_be_removed_and_then_not_read(tmp_path):
    folder = tmp_path / "gone"
    folder.mkdir()
    with locks.removing(folder) as free:
        assert free
        with pytest.raises(FileNotFoundError), locks.reading(folder):
            pass
        folder.rmdir()
    with pytest.raises(FileNotFoundError), locks.reading(folder):
        pass
