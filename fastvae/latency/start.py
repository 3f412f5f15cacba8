"""Time from the start of a process to its first result, and its peak memory; each measured in a new process."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fastvae.errors import FastvaeError

_CACHES = {"FASTVAE_CACHE": "fastvae", "TORCHINDUCTOR_CACHE_DIR": "inductor", "TRITON_CACHE_DIR": "triton"}


@dataclass(frozen=True)
class Start:
    """A process from its start to its first reconstruction, in seconds.

    Attributes:
        name: human-readable.
        batch: images of the first call.
        import_s: Python, torch and fastvae.
        load_s: `fastvae.load`, with the modules that it imports.
        accelerate_s: `VAE.accelerate`, on a CPU with its compilation; of the plain module, conversion to channels_last.
        first_call_s: the first reconstruction, until its result is in host memory; on a GPU with its compilation.
        total_s: the sum.
        peak_mib: peak memory of the process.
        peak_gpu_mib: peak GPU memory that torch reserved; None on a CPU.
    """

    name: str
    batch: int
    import_s: float
    load_s: float
    accelerate_s: float
    first_call_s: float
    total_s: float
    peak_mib: float
    peak_gpu_mib: float | None


def planned(batches: tuple[int, ...]) -> list[tuple[str, int]]:
    """Names and batch sizes that `measure_starts` measures: one image, and the largest batch for its memory.

    The first accelerated start finds the cache empty and fills it.
    """
    plan = [("plain", 1), ("accelerated, empty cache", 1), ("accelerated, warm cache", 1)]
    if (many := max(batches)) > 1:
        plan += [("plain", many), ("accelerated, warm cache", many)]
    return plan


def measure_starts(run: str | Path, batches: tuple[int, ...], device: str) -> Iterator[Start]:
    """Measures the planned starts, one after the other.

    Args:
        run: as for `fastvae.load`.
        batches: images per call; only the largest is used, beside 1.
        device: "cpu" or "cuda".

    Raises:
        FastvaeError: a process failed.
    """
    with tempfile.TemporaryDirectory(prefix="fastvae-latency-") as cache:
        for name, batch in planned(batches):
            yield measure_start(name, run, batch, device, Path(cache))


def measure_start(name: str, run: str | Path, batch: int, device: str, cache: Path) -> Start:
    """Measures one process, whose compilation caches are in the folder `cache`.

    Raises:
        FastvaeError: the process failed.
    """
    command = [sys.executable, "-m", "fastvae.latency.first_result"]
    kind = name.partition(",")[0]
    env = {**os.environ, **{variable: str(cache / folder) for variable, folder in _CACHES.items()}}
    arguments = [str(time.time()), str(run), str(batch), kind, device]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, errors="replace", env=env)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise FastvaeError(f"the process that measures a start ({name}, batch {batch}) failed: {lines[-1]}")
    result = json.loads(done.stdout.splitlines()[-1])
    return Start(name, batch, **{k: v if v is None else round(v, 3) for k, v in result.items()})
