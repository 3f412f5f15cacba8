"""Freed memory stays with the process while it trains on a CPU."""

import ctypes
import sys
from contextlib import suppress

# Parameters of glibc's mallopt, from malloc.h.
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4


def keep_freed_memory() -> None:
    """Lets glibc reuse the memory of freed tensors instead of handing it back to the system. Elsewhere it does nothing.

    A tensor of more than 32 MiB would get new pages in every step, which the system fills with zeros and maps one by
    one when they are first written: 1.5 us for each 4 KiB in a virtual machine, ten times what writing them takes. The
    process keeps the most memory that it had at any time, which a step needs again.
    """
    if sys.platform != "linux":
        return
    with suppress(AttributeError):  # another C library
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_MMAP_MAX, 0)
        mallopt(_TRIM_THRESHOLD, -1)  # never
