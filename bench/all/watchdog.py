"""Ends what a run has started if the run itself is killed: a stage that hangs would hold the GPU for ever.

python -m bench.all.watchdog MARK waits until its input ends, as it does when the run ends in whatever way.
"""

import contextlib
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

from bench.all.processes import GRACE_S, ROOT, send

# In the environment of all that a run starts.
MARK = "FASTVAE_BENCH_RUN"
_NONE = 0  # asks whether a process is there


@contextlib.contextmanager
def watched() -> Iterator[dict[str, str]]:
    """Watches over this process; yields variables for the environment of what it starts.

    Where there is no /proc, nothing is ended.
    """
    mark = secrets.token_hex(8)
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.all.watchdog", mark],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if name != MARK},
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        process_group=0,  # or what kills the run's group would kill it, too
    )
    try:
        yield {MARK: mark}
    finally:
        process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(1)


def main(mark: str) -> None:
    """Waits, then asks all with this mark to end, and after a while kills them."""
    sys.stdin.buffer.read()
    running, deadline = send(signal.SIGTERM, MARK, {mark}), time.monotonic() + GRACE_S
    while running and time.monotonic() < deadline:
        time.sleep(0.1)
        running = send(_NONE, MARK, {mark})
    send(signal.SIGKILL, MARK, {mark})


if __name__ == "__main__":
    main(sys.argv[1])
