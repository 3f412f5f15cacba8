"""How many decoding threads there should be."""

import os

from fastvae.errors import UsageError


def decoding_threads(workers: int | None) -> int:
    """`workers`, or if that is None one for each core that this process may use.

    Raises:
        UsageError: `workers` is less than 1.
    """
    if workers is None:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if workers < 1:
        raise UsageError(f"workers must be 1 or more; got {workers}")
    return workers
