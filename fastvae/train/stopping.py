"""SIGINT and SIGTERM as a wish that the training loop reads between two steps."""

import signal
from types import TracebackType


class StopSignal:
    """Context manager: while it is open, the first SIGINT or SIGTERM only sets `received`.

    A second SIGINT acts as it does outside, so that an impatient person still gets out; further SIGTERMs, which
    schedulers repeat, wait for what is being saved.

    Attributes:
        received: the signal's number, or None.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._previous = {}

    def __enter__(self) -> "StopSignal":
        for number in (signal.SIGINT, signal.SIGTERM):
            self._previous[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _receive(self, number: int, frame) -> None:
        self.received = number
        signal.signal(signal.SIGINT, self._previous[signal.SIGINT])
