"""How far long work is: a bar on a terminal, a line now and then in a log file."""

import sys
from collections.abc import Iterable
from typing import Any, TextIO

from tqdm import tqdm

_SECONDS_BETWEEN_LINES = 30.0
_LINE = "{desc}: {n_fmt} of {total_fmt}{unit}, {elapsed} gone, {remaining} left"


def progress_bar(
    items: Iterable | None = None, *, what: str, total: int | None, unit: str = "", show: bool | None = None, **options
) -> tqdm:
    """A tqdm on standard error, in the form that suits where that leads.

    Args:
        items: what to go through, if the bar should count them.
        what: is done, in a word or two.
        total: how many there are; None if that is not known.
        unit: of what is counted, with a space before it, as " images".
        show: False for nothing at all; True and None show it.
        options: of `tqdm.tqdm`.
    """
    stream = sys.stderr
    options |= {"desc": what, "total": total, "unit": unit, "disable": show is False or stream is None}
    if stream is None or stream.isatty():
        return tqdm(items, file=stream, **options)
    options["leave"] = options.get("leave", True)
    return tqdm(
        items,
        file=_Lines(stream),
        mininterval=_SECONDS_BETWEEN_LINES,
        maxinterval=_SECONDS_BETWEEN_LINES,
        bar_format=_LINE,
        **options,
    )


class _Lines:
    """Turns what tqdm rewrites in place into lines."""

    def __init__(self, stream: TextIO):
        self._stream = stream

    def write(self, text: str) -> None:
        for line in text.replace("\r", "\n").splitlines():
            if line.strip():
                self._stream.write(line.rstrip() + "\n")

    def flush(self) -> None:
        self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
