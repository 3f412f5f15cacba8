"""Errors meant for people: what was expected, what came, what to do."""

import difflib
from collections.abc import Iterable


class FastvaeError(Exception):
    """A problem that its reader can solve. The command line prints the message alone and exits with 1."""

    exit_code = 1


class UsageError(FastvaeError):
    """The command, a flag or a name was wrong. The command line prints the message alone and exits with 2."""

    exit_code = 2


def suggest(name: str, known: Iterable[str]) -> str:
    """ ", did you mean ...?" with the nearest known name, or all of them where none is near."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f", did you mean {near[0]!r}?" if near else f"; there are: {', '.join(known)}"
