"""Processes with a time limit, each in a group of its own, that leave nothing running behind.

Their output goes into files: a pipe that nobody reads would stop them, and one that never ends would stop the reader.
"""

import contextlib
import os
import secrets
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
# From the request to end (SIGTERM) until a process is killed, in which it writes what it has.
GRACE_S = 10.0
# How long to wait for killed processes, for all of them together: one that hangs in a driver cannot die.
_DYING_S = 3.0
# In the environment of a process and of all that it starts, so that those which left its group are found, too.
_MARK = "FASTVAE_BENCH_STAGE"


@dataclass(frozen=True)
class Ended:
    """How a process ended.

    Attributes:
        seconds: that it ran.
        limit_s: that it was allowed.
        exit_status: negative if a signal ended it; None if it was stopped since its time was over.
        interrupted: whether it was stopped since the run was asked to end.
    """

    seconds: float
    limit_s: float
    exit_status: int | None
    interrupted: bool = False


def grace_s(limit_s: float) -> float:
    """How long before the end of its time a process is asked to end: less in a short time, or nothing were measured."""
    return min(GRACE_S, limit_s / 5)


def run_together(
    commands: Mapping[str, list[str]],
    limit_s: float,
    logs: Mapping[str, Path],
    *,
    environment: Mapping[str, str] | None = None,
    interrupted: Callable[[], bool] = lambda: False,
) -> dict[str, Ended]:
    """Runs commands side by side for at most `limit_s` seconds: shortly before they are over they are asked to end.

    No more run at a time than there are processors; the others wait for their turn.

    Args:
        commands: by name.
        limit_s: for all of them.
        logs: the file for each one's output.
        environment: variables added to this process's.
        interrupted: asked ten times a second; once it says yes, time is over.

    Returns:
        How each ended. Whatever they had started is dead.
    """
    start = time.monotonic()
    last_s = grace_s(limit_s)
    asked_at = start + limit_s - last_s
    waiting, running, ended = list(commands), {}, {}
    stopped = by_request = False

    def end(seconds: float, status: int | None = None) -> Ended:
        return Ended(seconds, round(limit_s, 1), status, interrupted=by_request and status is None)

    try:
        while waiting or running:
            while waiting and len(running) < _processors():
                name = waiting.pop(0)
                running[name] = _Running.start(commands[name], logs[name], environment or {})
            for name, process in list(running.items()):
                if (status := process.poll()) is not None:
                    _kill([process])
                    ended[name] = end(process.seconds(), None if stopped else status)
                    del running[name]
            now = time.monotonic()
            if not stopped and (now >= asked_at or interrupted()):
                by_request = interrupted()
                asked_at, stopped = min(asked_at, now), True
                waiting.clear()
                for process in running.values():
                    process.terminate()
            if now >= asked_at + last_s:
                break
            if running:
                time.sleep(0.1)
    finally:
        _kill(running.values())
        for name, process in running.items():
            ended[name] = end(process.seconds())
    return {name: ended.get(name, end(0.0)) for name in commands}


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Running:
    """A process, and what it starts."""

    def __init__(self, process: subprocess.Popen | None, mark: str):
        self._process, self.mark = process, mark
        self._start = time.monotonic()

    @classmethod
    def start(cls, command: list[str], log: Path, environment: Mapping[str, str]) -> "_Running":
        mark = secrets.token_hex(8)
        variables = {**os.environ, "PYTHONUNBUFFERED": "1", **environment, _MARK: mark}
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as output:
            try:
                process = subprocess.Popen(
                    command,
                    cwd=ROOT,
                    env=variables,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    process_group=0,  # not a session: it ends with the session of the runner
                )
            except OSError as error:
                output.write(f"{command[0]} could not be started: {error}\n".encode())
                process = None
        return cls(process, mark)

    def seconds(self) -> float:
        return round(time.monotonic() - self._start, 1)

    def poll(self) -> int | None:
        return 127 if self._process is None else self._process.poll()

    def terminate(self) -> None:
        if self._process is not None:
            self._process.terminate()

    def kill(self) -> None:
        """Ends it and its group."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def wait(self, seconds: float) -> None:
        """Until it has ended, but no longer than that."""
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(seconds)


def _kill(processes: Collection[_Running]) -> None:
    """Ends them and all that they started, and does not wait for what cannot die."""
    deadline = time.monotonic() + _DYING_S
    for process in processes:
        process.kill()
    marks = {process.mark for process in processes}
    # A thread, since the kernel lets nobody read the environment of a process that hangs at the wrong place.
    thread = threading.Thread(target=send, args=(signal.SIGKILL, _MARK, marks), daemon=True)
    thread.start()
    thread.join(_DYING_S)
    for process in processes:
        process.wait(max(deadline - time.monotonic(), 0.0))


def send(number: int, name: str, values: Collection[str]) -> int:
    """Sends a signal to every process in whose environment this variable has one of these values; returns how many.

    Finds none where there is no /proc.
    """
    sought, count = {f"{name}={value}".encode() for value in values}, 0
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):  # it ended meanwhile, or is another user's
            if not sought.isdisjoint(path.read_bytes().split(b"\0")):
                os.kill(int(path.parent.name), number)
                count += 1
    return count
