"""How many decoding threads there should be."""

import os

from fastvae.errors import UsageError

# Beyond what a system lets a process have, starting threads ends it.
_MOST = 1024


def decoding_threads(workers: int | None) -> int:
    """`workers`, or if that is None one for each core that this process may use.

    Raises:
        UsageError: `workers` is less than 1, or more than any machine has cores.
    """
    if workers is None:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if not 1 <= workers <= _MOST:
        raise UsageError(f"workers must be from 1 to {_MOST}; got {workers}")
    return workers
