"""One line that says where a run is: step, images a second, each loss, time to go."""

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
    """Rewrites one line on a terminal; elsewhere prints the first one and from then on one every `quiet_s` seconds.

    Args:
        total: steps of the whole run.
        stream: where to, standard error by default.
        quiet_s: seconds between two lines that are not rewritten.
        clock: tells seconds; where they begin does not matter.
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
        """The state after `step` steps."""
        now = self._clock()
        if not self.live and self._last is not None and step < self.total and now - self._last < self.quiet_s:
            return
        self._last = now
        parts = [f"step {step}/{self.total}", f"{images_per_s:.1f} images/s"]
        parts += [f"{name} {value:.4g}" for name, value in losses.items()]
        parts.append(f"{duration(seconds_left)} left")
        line = "  ".join(parts)
        if self.live:
            line = line[: shutil.get_terminal_size().columns - 1]  # a wrapped line could not be rewritten
            self.stream.write("\r" + line.ljust(self._length))
            self._length = len(line)
        else:
            self.stream.write(line + "\n")
        self.stream.flush()

    def close(self) -> None:
        """Ends the line that is rewritten."""
        if self.live and self._length:
            self.stream.write("\n")
            self.stream.flush()
            self._length = 0

    def note(self, text: str) -> None:
        """A line of its own, above the one that is rewritten."""
        if self.live and self._length:
            self.stream.write("\r" + " " * self._length + "\r")
            self._length = 0
        self.stream.write(text + "\n")
        self.stream.flush()
