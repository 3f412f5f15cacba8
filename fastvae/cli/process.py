"""What a command needs of its process: signals that unwind it, and output that may go away."""

import contextlib
import io
import os
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any, TextIO

_SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))


class Terminated(BaseException):
    """A signal asked this process to end: raised in the main thread, so that files are closed and removed on the way.

    Attributes:
        number: the signal's.
    """

    def __init__(self, number: int):
        super().__init__(f"signal {number}")
        self.number = number


class Interrupted:
    """Whether Ctrl-C was pressed.

    Attributes:
        is_set: stays true if whoever was running swallowed the KeyboardInterrupt, as modules do that are being
            imported; whatever they raise later has its cause in it.
    """

    is_set = False


@contextlib.contextmanager
def signals_unwind() -> Iterator[Interrupted]:
    """While it is open, the first SIGTERM or SIGHUP raises `Terminated`; later ones wait for what is being tidied up.

    A signal that was ignored (nohup) stays ignored. SIGINT raises KeyboardInterrupt, as ever.
    """
    previous, interrupted = {}, Interrupted()

    def receive(number: int, frame: Any) -> None:
        for other in previous:
            signal.signal(other, signal.SIG_IGN)
        raise Terminated(number)

    def interrupt(number: int, frame: Any) -> None:
        interrupted.is_set = True
        raise KeyboardInterrupt

    if threading.current_thread() is threading.main_thread():
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            previous[signal.SIGINT] = signal.signal(signal.SIGINT, interrupt)
        for number in _SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                previous[number] = signal.signal(number, receive)
    try:
        yield interrupted
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def lasting_output() -> Iterator["LastingStream"]:
    """While it is open, standard output and error may be closed, full, or lose their readers, and work goes on.

    File names that are not UTF-8 are written as they are, and what else an encoding does not have is escaped. Gives
    standard output, whose `error` tells the caller whether all was written.
    """
    _fill_standard_descriptors()
    before = sys.stdout, sys.stderr
    errors = getattr(sys.stdout, "errors", None)
    with contextlib.suppress(AttributeError, ValueError, OSError):
        sys.stdout.reconfigure(errors="surrogateescape")
    sys.stdout, sys.stderr = output, _ = LastingStream(sys.stdout), LastingStream(sys.stderr)
    try:
        yield output
    finally:
        output.flush()
        sys.stdout, sys.stderr = before
        with contextlib.suppress(AttributeError, ValueError, OSError):
            sys.stdout.reconfigure(errors=errors)


class LastingStream(io.TextIOBase):
    """A text stream that, once it cannot be written, drops what it is given.

    Args:
        stream: where to write; None for nowhere.

    Attributes:
        error: why it cannot be written any more, or None.
    """

    def __init__(self, stream: TextIO | None):
        self._stream = stream
        self.error: Exception | None = None

    def write(self, text: str) -> int:
        """Writes and returns the length, whatever becomes of it."""
        try:
            self._try(lambda stream: stream.write(text))
        except UnicodeEncodeError:
            escaped = text.encode(self.encoding, "backslashreplace").decode(self.encoding)
            self._try(lambda stream: stream.write(escaped))
        return len(text)

    def flush(self) -> None:
        """Flushes, if there is still something to flush."""
        self._try(lambda stream: stream.flush())

    def isatty(self) -> bool:
        """Whether it is a terminal, and still there."""
        return self._stream is not None and self._stream.isatty()

    def fileno(self) -> int:
        """The descriptor.

        Raises:
            io.UnsupportedOperation: there is none.
        """
        if self._stream is None:
            raise io.UnsupportedOperation("fileno")
        return self._stream.fileno()

    @property
    def encoding(self) -> str:
        """Of the stream."""
        return getattr(self._stream, "encoding", None) or "utf-8"

    def _try(self, act) -> None:
        if self._stream is None:
            return
        try:
            act(self._stream)
        except UnicodeEncodeError:
            raise
        except (OSError, ValueError) as error:
            self.error, lost, self._stream = error, self._stream, None
            # Or Python tries again at its end, and says that it failed.
            with contextlib.suppress(OSError, ValueError, AttributeError):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, lost.fileno())
                os.close(nowhere)


def _fill_standard_descriptors() -> None:
    # Else the next files that are opened become standard error, and whatever writes there writes into them.
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            with contextlib.suppress(OSError):
                os.open(os.devnull, os.O_RDWR)
