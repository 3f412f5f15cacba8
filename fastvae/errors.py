"""Errors meant for people: what was expected, what came, what to do."""


class FastvaeError(Exception):
    """A problem that its reader can solve. The command line prints the message alone and exits with 1."""

    exit_code = 1


class UsageError(FastvaeError):
    """The command, a flag or a name was wrong. The command line prints the message alone and exits with 2."""

    exit_code = 2
