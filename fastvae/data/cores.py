"""The number of decoding threads."""

import os

from fastvae.errors import UsageError

# Starting more threads than the system allows ends the process.
_MAX = 1024


def decoding_threads(workers: int | None) -> int:
    """`workers`, or one for each core available to this process if that is None.

    Raises:
        UsageError: `workers` is not from 1 to 1024.
    """
    if workers is None:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if not 1 <= workers <= _MAX:
        raise UsageError(f"workers must be from 1 to {_MAX}; got {workers}")
    return workers
