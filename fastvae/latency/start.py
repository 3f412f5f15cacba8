"""From nothing to the first result, and the memory that it takes: each in a process of its own."""

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
        name: for people.
        batch: images of the first call.
        import_s: Python, torch and fastvae.
        load_s: `fastvae.load`, with the modules that it imports.
        accelerate_s: `VAE.accelerate`, what it compiles included; for the plain module, channels_last.
        first_call_s: the first reconstruction, until its result is in the host's memory.
        total_s: all of it.
        peak_mib: memory of the process at its largest.
        peak_gpu_mib: what torch reserved of the GPU's, None on a CPU.
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
    """Names and batches of what `measure_starts` starts: one image with an empty cache, too, the largest for memory.

    The first one that is accelerated finds the cache empty and leaves it warm.
    """
    plan = [("plain", 1), ("accelerated, empty cache", 1), ("accelerated, warm cache", 1)]
    if (many := max(batches)) > 1:
        plan += [("plain", many), ("accelerated, warm cache", many)]
    return plan


def measure_starts(run: str | Path, batches: tuple[int, ...], device: str) -> Iterator[Start]:
    """What is planned, one after the other.

    Args:
        run: as `fastvae.load` takes it.
        batches: images a call; the largest counts.
        device: "cpu" or "cuda".

    Raises:
        FastvaeError: a process failed.
    """
    with tempfile.TemporaryDirectory(prefix="fastvae-latency-") as cache:
        for name, batch in planned(batches):
            yield measure_start(name, run, batch, device, Path(cache))


def measure_start(name: str, run: str | Path, batch: int, device: str, cache: Path) -> Start:
    """One process, which keeps what it compiles in the folder `cache`.

    Raises:
        FastvaeError: it failed.
    """
    command = [sys.executable, "-m", "fastvae.latency.first_result"]
    kind = name.partition(",")[0]
    env = {**os.environ, **{variable: str(cache / folder) for variable, folder in _CACHES.items()}}
    arguments = [str(time.time()), str(run), str(batch), kind, device]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, errors="replace", env=env)
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise FastvaeError(f"the process that should show how long a start takes ({name}, {batch}) failed: {said[-1]}")
    found = json.loads(done.stdout.splitlines()[-1])
    return Start(name, batch, **{k: v if v is None else round(v, 3) for k, v in found.items()})
