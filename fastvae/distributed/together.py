"""Runs a command on all ranks: one of them speaks, and what ends one ends all."""

import logging
import signal
import threading
import traceback
from collections.abc import Callable

from fastvae.distributed.group import Group
from fastvae.distributed.place import Place
from fastvae.errors import FastvaeError


def together(place: Place, command: Callable[[Group], int]) -> int:
    """Runs a command with the others that torchrun has started.

    Notes are rank 0's alone; warnings of other ranks carry their number. An error of one rank ends all of them, with
    one message.

    Args:
        place: of this process, one of several.
        command: ends on all ranks, or raises on any.

    Returns:
        The exit code of this process.

    Raises:
        FastvaeError: the others cannot be reached.
    """
    ranks = Group(place)
    try:
        return _run(ranks, command)
    except BaseException as error:
        # torchrun sends SIGTERM to all when one rank has ended, and this one may just be finding out why.
        if threading.current_thread() is threading.main_thread():
            for name in ("SIGTERM", "SIGHUP"):
                if hasattr(signal, name):
                    signal.signal(getattr(signal, name), signal.SIG_IGN)
        if not isinstance(error, Exception):
            ranks.interrupted()
            raise
        if not isinstance(error, FastvaeError):
            traceback.print_exc()
        return ranks.fail(error)


def _run(ranks: Group, command: Callable[[Group], int]) -> int:
    if not ranks.first:
        log = logging.getLogger("fastvae")
        log.setLevel(logging.WARNING)
        for handler in log.handlers:
            handler.setFormatter(logging.Formatter(f"rank {ranks.rank}: %(message)s"))
    code = command(ranks)
    ranks.close()
    return code
