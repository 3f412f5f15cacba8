"""Errors for users: what was expected, what came, what to do."""

import difflib
from collections.abc import Iterable


class FastvaeError(Exception):
    """A problem that the user can solve. The command line prints only the message and exits with 1."""

    exit_code = 1


class UsageError(FastvaeError):
    """A wrong command, flag or name. The command line prints only the message and exits with 2."""

    exit_code = 2


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its class if the message is empty."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def suggest(name: str, known: Iterable[str]) -> str:
    """ ", did you mean ...?" with the closest known name, or "; choose from ..." with all of them if none is close."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f", did you mean {close[0]!r}?" if close else f"; choose from {', '.join(known)}"
