"""Signals that end a process, as a wish that the training loop reads between two steps."""

import signal
import threading
from types import TracebackType

# SIGHUP: the terminal or the SSH connection has gone. Windows has none.
_SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


class StopSignal:
    """Context manager: while it is open, the first SIGINT, SIGTERM or SIGHUP only sets `received`.

    A second SIGINT acts as it does outside, so that an impatient person still gets out; further SIGTERMs, which
    schedulers repeat, wait for what is being saved. A signal that was ignored (nohup) stays ignored. In another thread
    than the main one, where Python delivers no signals, it does nothing.

    Attributes:
        received: the signal's number, or None.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._previous = {}

    def __enter__(self) -> "StopSignal":
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._previous[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _receive(self, number: int, frame) -> None:
        self.received = number
        if signal.SIGINT in self._previous:
            signal.signal(signal.SIGINT, self._previous[signal.SIGINT])
