"""Contenders in processes of their own, which take turns.

In one process the threads of torch, of the other runtimes and of fastvae's engine would compete for the cores, and all
of them become two to four times slower. Here the processes that are not having their turn are stopped.

    python -m bench.inference.isolated NAME BATCH WIDTH THREADS    one contender, for the class below; JSON both ways
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from bench.inference.accelerate_contenders import CONTENDERS, dtype_of
from bench.inference.contenders import smooth_images, trained_vae
from bench.measuring.closeness import relative_error

ROOT = Path(__file__).parents[2]


class Contender:
    """One contender's process, which runs only in `prepare` and `turn`.

    Args:
        name: in `CONTENDERS`.
        batch: images a call.
        width: of the networks.
        threads: of the process.
        fresh_caches: whether it starts with empty caches, so that what it compiles is in its first call's time.
    """

    def __init__(self, name: str, batch: int, width: int, threads: int, *, fresh_caches: bool = True):
        self.name = name
        command = [sys.executable, "-m", "bench.inference.isolated", name, *map(str, (batch, width, threads))]
        self._caches = tempfile.TemporaryDirectory(prefix="fastvae-bench-", ignore_cleanup_errors=True)
        places = ("FASTVAE_CACHE", "TORCHINDUCTOR_CACHE_DIR") if fresh_caches else ()
        env = {**os.environ, **{place: str(Path(self._caches.name) / place) for place in places}}
        # Its own group, so that a compiler's workers stop and end with it.
        self._process = subprocess.Popen(
            command, cwd=ROOT, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
        )

    def prepare(self) -> dict:
        """Waits until it is built and has returned its first result.

        Returns:
            "first_call_s", from the VAE to the first result with empty caches, and "error", of the result against
            float64.

        Raises:
            RuntimeError: it could not be built; says why.
        """
        return self._answer()

    def turn(self, calls: int, untimed: int) -> list[float]:
        """Seconds of `calls` calls, after `untimed` others that bring its data back into the caches.

        Raises:
            RuntimeError: its process has ended.
        """
        self._signal(signal.SIGCONT)
        with contextlib.suppress(BrokenPipeError):  # then there is no answer, either
            print(json.dumps({"calls": calls, "untimed": untimed}), file=self._process.stdin, flush=True)
        return self._answer()["seconds"]

    def end(self) -> None:
        """Leaves no process behind."""
        for number in (signal.SIGKILL, signal.SIGCONT):
            self._signal(number)
        self._process.wait()
        self._caches.cleanup()

    def _answer(self) -> dict:
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"its process ended with status {self._process.wait()}")
        self._signal(signal.SIGSTOP)
        answer = json.loads(line)
        if "failed" in answer:
            raise RuntimeError(answer["failed"])
        return answer

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)


@contextlib.contextmanager
def all_ended(contenders: list[Contender]) -> Iterator[None]:
    """Ends every contender that is in the list when the block ends, however it ends."""
    try:
        yield
    finally:
        for contender in contenders:
            contender.end()


def serve(name: str, batch: int, width: int, threads: int) -> None:
    """Builds a contender and answers requests until its input ends."""
    # Exporters and compilers print; the parent must read nothing but answers.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def answer(values: dict) -> None:
        print(json.dumps(values), file=answers, flush=True)

    torch.set_num_threads(threads)
    try:
        vae = trained_vae(width)
        x = smooth_images(batch)
        few = x[:8]
        with torch.no_grad():
            exact = trained_vae(width).double().reconstruct(few.double())
        start = time.perf_counter()
        call = CONTENDERS[name](vae, x, dtype_of(name))
        first_result = call()
        first_call_s = time.perf_counter() - start
        answer({"first_call_s": first_call_s, "error": relative_error(first_result[: len(few)], exact)})
    except Exception as error:  # the others go on without this one
        answer({"failed": f"{type(error).__name__}: {' '.join(str(error).strip().splitlines()[:1])}"})
        return
    for line in sys.stdin:
        wanted = json.loads(line)
        for _ in range(wanted["untimed"]):
            call()
        seconds = []
        for _ in range(wanted["calls"]):
            start = time.perf_counter()
            call()
            seconds.append(time.perf_counter() - start)
        answer({"seconds": seconds})


if __name__ == "__main__":
    serve(sys.argv[1], *map(int, sys.argv[2:]))
