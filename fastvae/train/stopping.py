"""Turns signals that would end the process into a flag that the training loop checks between steps."""

import signal
import threading
from types import TracebackType

# SIGHUP: the terminal or the SSH connection was closed. Windows has no such signal.
_SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


class StopSignal:
    """Context manager. Inside it the first SIGINT, SIGTERM or SIGHUP only sets `received`.

    A second SIGINT acts as usual, so that an impatient user can still interrupt; repeated SIGTERMs, as schedulers send
    them, are ignored until saving is done. A signal that was ignored before (nohup) stays ignored. Outside the main
    thread, where Python delivers no signals, it does nothing.

    Attributes:
        received: number of the signal, or None.
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
