"""Work of the host on results of the device, done when they have long arrived."""

from collections import deque
from collections.abc import Callable


class LateWork:
    """Jobs in order; on a GPU each is done one window after it was added.

    A host that reads the result of the step that it has just enqueued waits for the device, and the device then waits
    for the host's next step. One window later the result is there, and the device has a window of work before it. This
    also keeps the host at most one window ahead.

    Args:
        late: whether there is anything to wait for; otherwise each job is done at once.
    """

    def __init__(self, *, late: bool):
        self._late = late
        self._jobs: deque[Callable[[], None]] = deque()

    def add(self, job: Callable[[], None]) -> None:
        """Adds a job to those of this window."""
        self._jobs.append(job)
        if not self._late:
            self.flush()

    def add_window(self, job: Callable[[], None]) -> None:
        """Does all jobs of earlier windows, and adds the first one of the next."""
        earlier, self._jobs = self._jobs, deque([job])
        try:
            while earlier:
                earlier.popleft()()
        finally:  # if one fails, those after it remain, and so does the new one
            self._jobs.extendleft(reversed(earlier))
        if not self._late:
            self.flush()

    def flush(self) -> None:
        """Does all jobs now. If one fails, those after it remain."""
        while self._jobs:
            self._jobs.popleft()()
