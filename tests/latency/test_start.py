"""Starts in processes of their own, and the memory that they see."""

import subprocess
import sys

import pytest

import fastvae
from fastvae.errors import FastvaeError
from fastvae.files.cache import cache_folder
from fastvae.latency import start

# A process of 300 MiB that asks a small one what its peak was, and prints the answer after its own.
BIG = """
import subprocess, sys
block = b"x" * (300 * 2**20)
ask = "from fastvae.latency.first_result import peak_mib; print(peak_mib())"
print(subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True).stdout)
from fastvae.latency.first_result import peak_mib
print(peak_mib())
"""


def test_a_start_by_parts(tmp_path):
    fastvae.VAE(16, width=2, latent=4).save_pretrained(tmp_path / "model")
    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / "fastvae").symlink_to(cache_folder())  # warm, if other tests compiled there
    found = start.measure_start("accelerated, warm cache", tmp_path / "model", 3, "cpu", cache)
    parts = (found.import_s, found.load_s, found.accelerate_s, found.first_call_s)
    assert min(parts) >= 0 and found.import_s > 0 and found.total_s == pytest.approx(sum(parts), abs=0.01)
    assert (found.name, found.batch, found.peak_gpu_mib) == ("accelerated, warm cache", 3, None)
    assert found.peak_mib > 100


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the system says no more than ru_maxrss")
def test_the_peak_is_not_that_of_the_process_before():
    found = subprocess.run([sys.executable, "-c", BIG], capture_output=True, text=True, check=True).stdout.split()
    small, big = map(float, found)
    assert small < 200 and big > 300


def test_the_cache_is_empty_once_and_the_same_from_then_on(tmp_path, monkeypatch):
    asked, folders = [], []

    def process(command, *, env, **_):
        asked.append(command[-3:])
        folders.append({env[name] for name in ("FASTVAE_CACHE", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR")})
        fields = ("import_s", "load_s", "accelerate_s", "first_call_s", "total_s", "peak_mib", "peak_gpu_mib")
        said = "a library's greeting\n{" + ", ".join(f'"{name}": 1.0' for name in fields) + "}\n"
        return subprocess.CompletedProcess(command, 0, said, "")

    monkeypatch.setattr(subprocess, "run", process)
    found = list(start.measure_starts(tmp_path, (8, 64, 1), "cpu"))
    assert [(s.name, s.batch) for s in found] == start.planned((64,))
    assert asked == [
        ["1", "plain", "cpu"],
        ["1", "accelerated", "cpu"],
        ["1", "accelerated", "cpu"],
        ["64", "plain", "cpu"],
        ["64", "accelerated", "cpu"],
    ]
    assert all(found == folders[0] and len(found) == 3 for found in folders)
    assert str(cache_folder()) not in folders[0]


def test_without_larger_batches_one_is_enough():
    assert len(start.planned((1,))) == 3


@pytest.mark.parametrize(
    "error, words", [("Traceback\nfastvae.errors.FastvaeError: no run\n", "no run"), ("", "exit status -9")]
)
def test_a_process_that_fails_is_quoted(tmp_path, monkeypatch, error, words):
    monkeypatch.setattr(subprocess, "run", lambda command, **_: subprocess.CompletedProcess(command, -9, "", error))
    with pytest.raises(FastvaeError, match=rf"\(plain, batch 1\) failed: .*{words}"):
        list(start.measure_starts(tmp_path, (1,), "cpu"))
