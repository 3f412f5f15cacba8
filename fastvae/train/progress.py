"""The status line of a run: step, images per second, losses, time left."""

import shutil
import sys
import time
from collections.abc import Callable
from typing import TextIO


def duration(seconds: float) -> str:
    """Seconds -> "1:02:03" or "2:03"."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


class Progress:
    """Rewrites one line on a terminal; elsewhere prints a line at most every `quiet_s` seconds.

    Args:
        total: steps of the complete run.
        stream: standard error by default.
        quiet_s: seconds between lines if the stream is not a terminal.
        clock: returns seconds from any origin.
    """

    def __init__(
        self,
        total: int,
        stream: TextIO | None = None,
        quiet_s: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.total, self.quiet_s, self._clock = total, quiet_s, clock
        self.stream = stream or sys.stderr
        self.live = self.stream.isatty()
        self._last: float | None = None
        self._length = 0

    def show(self, step: int, images_per_s: float, losses: dict[str, float], seconds_left: float) -> None:
        """Shows the state after `step` steps."""
        now = self._clock()
        if not self.live and self._last is not None and step < self.total and now - self._last < self.quiet_s:
            return
        self._last = now
        columns = [f"step {step}/{self.total}", f"{images_per_s:.1f} images/s"]
        columns += [f"{name} {value:.4g}" for name, value in losses.items()]
        columns.append(f"{duration(seconds_left)} left")
        line = "  ".join(columns)
        if self.live:
            line = line[: shutil.get_terminal_size().columns - 1]  # a line that wraps could not be rewritten
            self.stream.write("\r" + line.ljust(self._length))
            self._length = len(line)
        else:
            self.stream.write(line + "\n")
        self.stream.flush()

    def close(self) -> None:
        """Ends the rewritten line."""
        if self.live and self._length:
            self.stream.write("\n")
            self.stream.flush()
            self._length = 0

    def note(self, text: str) -> None:
        """Prints a line above the rewritten one."""
        if self.live and self._length:
            self.stream.write("\r" + " " * self._length + "\r")
            self._length = 0
        self.stream.write(text + "\n")
        self.stream.flush()
