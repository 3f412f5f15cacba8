"""The thread that writes checkpoints while training goes on."""

import threading
from collections.abc import Callable


class CheckpointWriter:
    """Runs one write at a time on a thread of its own; its error is raised where the training loop asks for it.

    The thread is not a daemon: even an interpreter that is being shut down lets it finish.
    """

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def start(self, write: Callable[[], None]) -> None:
        """Runs `write` on the thread, after waiting for the one before.

        Raises:
            Exception: what the one before raised.
        """
        self.wait()
        self._thread = threading.Thread(target=self._run, args=(write,), name="checkpoint")
        self._thread.start()

    def check(self) -> None:
        """Raises what a write has raised, without waiting for one that is running."""
        if self._error is not None:  # then the thread is done, and stores no other
            error, self._error = self._error, None
            raise error

    def wait(self) -> None:
        """Waits for the write that is running, and raises what it raises."""
        self._join()
        self.check()

    def settle(self, seconds: float | None = None) -> BaseException | None:
        """Waits for the write that is running, at most so long; what it raised, or None."""
        self._join(seconds)
        error, self._error = self._error, None
        return error

    def _run(self, write: Callable[[], None]) -> None:
        try:
            write()
        except BaseException as error:  # raised by `check` or `wait`, in the loop's thread
            self._error = error

    def _join(self, seconds: float | None = None) -> None:
        if (thread := self._thread) is not None:
            thread.join(seconds)
            self._thread = thread if thread.is_alive() else None
