"""Progress of long work: a bar on a terminal, an occasional line in a log file."""

import sys
from collections.abc import Iterable
from typing import Any, TextIO

try:
    from tqdm import tqdm
except ModuleNotFoundError:  # a bare machine on which `python -m bench all` measures
    from fastvae.no_progress_bar import NoProgressBar as tqdm

_SECONDS_BETWEEN_LINES = 30.0
_LINE = "{desc}: {n_fmt} of {total_fmt}{unit}, {elapsed} elapsed, {remaining} left"


def progress_bar(
    items: Iterable | None = None, *, what: str, total: int | None, unit: str = "", show: bool | None = None, **options
) -> tqdm:
    """A tqdm on standard error; on a terminal a bar, elsewhere one line every 30 s.

    Args:
        items: to iterate over; None if the caller updates the bar.
        what: a short label.
        total: number of items; None if unknown.
        unit: of the count, with a leading space, " images".
        show: False hides it; True and None show it.
        options: for `tqdm.tqdm`.
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
    """Turns text that tqdm rewrites in place into separate lines."""

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
