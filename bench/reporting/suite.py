"""What every suite does around its measurements: flags, the record however it ends, notes, exit status."""

import argparse
import math
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench.measuring.ceilings import Ceilings
from bench.measuring.ours import is_ours
from bench.measuring.row import Row
from bench.measuring.verdicts import Verdict
from bench.reporting import record
from bench.reporting.newest_records import UNFINISHED
from fastvae.errors import FastvaeError


@dataclass
class Report:
    """What a suite has measured so far. It grows during the run, so that it can be written if the run is interrupted.

    Attributes:
        what: one sentence for the reader of the record.
        rows: the results, `Row`s or instances of a dataclass of the suite's own.
        verdicts: targets and whether they were met.
        ceilings: of the machine, where the suite measures them.
        extra: further entries of the record, such as settings.
        notes: what could not be measured or needs saying.
        failures: what should have been measured and could not, or was wrong.
        path: of the record; None before `run`.
    """

    what: str
    rows: list[Any] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)
    ceilings: Ceilings | None = None
    extra: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    path: Path | None = None
    _kept_at: float = field(default=-math.inf, init=False, repr=False)

    def note(self, message: str) -> None:
        """Keeps a message for the record and the end of the run."""
        self.notes.append(message)

    def fail(self, message: str) -> None:
        """Keeps a message that makes the exit status 1."""
        self.failures.append(message)

    def left_out(self, contender: str, error: Exception, job: str = "") -> None:
        """Keeps why a contender could not be timed: a failure of one of ours, a note of a peer.

        Args:
            contender: its name.
            error: what it raised.
            job: what it had to do, where there are several jobs.
        """
        reason = f"{type(error).__name__}: {' '.join(str(error).strip().splitlines()[:1])}"
        where = f"{job}: " if job else ""
        if is_ours(contender):
            self.fail(f"FAILED: {where}{contender}: {reason}")
        else:
            self.note(f"left out: {where}{contender}: {reason}")

    def wrong(self, contender: str, how: str, job: str = "") -> None:
        """Keeps that a contender computes something else and is not timed; see `left_out`."""
        where = f"{job}: " if job else ""
        if is_ours(contender):
            self.fail(f"WRONG, not timed: {where}{contender}: {how}")
        else:
            self.note(f"left out: {where}{contender} is wrong: {how}")

    def keep(self, every_s: float = 0.0) -> None:
        """Writes what there is by now, between two measurements: a crash of the process leaves it.

        Args:
            every_s: seconds since the last time before which nothing is done, for measurements that take less.
        """
        if self.path is not None and time.monotonic() - self._kept_at >= every_s:
            with suppress(OSError, FastvaeError):  # the next time, or the end, may find room
                self._write(self.path, [*self.notes, *self.failures, UNFINISHED])
            self._kept_at = time.monotonic()

    def write(self, path: Path) -> None:
        """Writes the record."""
        self._write(path, [*self.notes, *self.failures])

    def _write(self, path: Path, notes: list[str]) -> None:
        verdicts = {"verdicts": [verdict.as_json() for verdict in self.verdicts]} if self.verdicts else {}
        record.write(
            path,
            what=self.what,
            rows=[row.as_json() if isinstance(row, Row) else asdict(row) for row in self.rows],
            notes=notes,
            ceilings=self.ceilings,
            extra=verdicts | self.extra,
        )


def parser(
    name: str, doc: str, *, tiny: str = "seconds instead of minutes; the figures mean nothing"
) -> argparse.ArgumentParser:
    """A parser with the flags that every suite has.

    Args:
        name: of the suite.
        doc: the suite's docstring.
        tiny: help of --tiny.
    """
    made = argparse.ArgumentParser(
        prog=f"python -m bench {name}",
        description=doc,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    made.add_argument("--tiny", action="store_true", help=tiny)
    made.add_argument(
        "--out", type=record.place, help=f"the record, bench/records/DATE-MACHINE-{name}.json unless given"
    )
    made.set_defaults(suite=name)
    return made


def parse(parser: argparse.ArgumentParser, arguments: list[str], **at_least: int) -> argparse.Namespace:
    """The options, with `out` filled in and known to be writable before anything is measured.

    Args:
        parser: by the function of that name.
        arguments: of the command line.
        at_least: the least value of an option by its name; of each value where it takes several.

    Raises:
        SystemExit: with status 2, after a message that says which value was expected.
    """
    options = parser.parse_args(arguments)
    for name, least in at_least.items():
        value = getattr(options, name)
        for each in value if isinstance(value, list) else [value]:
            if each is not None and each < least:
                parser.error(f"--{name} must be {least} or more; got {each}")
    if options.tiny and options.out is None:
        parser.error("--tiny needs --out FILE: its figures mean nothing and do not belong into bench/records")
    options.out = options.out or record.path_for(options.suite)
    record.check_writable(options.out)
    return options


def run(
    report: Report, options: argparse.Namespace, measure: Callable[[], None], draw: Callable[[Path], None] | None = None
) -> int:
    """Measures, then writes the record and its picture, also of what an error or a time limit (SIGTERM) has left.

    Args:
        report: filled in by `measure`.
        options: by `parse`: the record's place, beside which the picture lies, and whether it is a tiny run's.
        measure: an AssertionError that it raises says that something of ours computes the wrong thing.
        draw: given a path, writes the picture; called only if there are rows.

    Returns:
        The exit status: 0; 1 if the report has failures, or a FastvaeError, which is printed, left no rows to write.

    Raises:
        Exception: what `measure` raises, but for AssertionError and FastvaeError.
    """
    record.exit_on_sigterm()
    start = time.perf_counter()
    out = options.out
    picture = out.with_suffix(".png")
    report.path = out
    if options.tiny:
        report.extra["tiny"] = True  # its figures mean nothing: `newest` passes it over
    ended = False
    try:
        try:
            measure()
        except AssertionError as error:
            report.fail(f"WRONG, not timed: {error}")
        except FastvaeError as error:
            if not report.rows:
                print(f"python -m bench {options.suite}: {error}", file=sys.stderr)
                return 1
            report.fail(f"FAILED: {error}")
        ended = True
    finally:
        if not ended:
            report.note(UNFINISHED)
        if ended or report.rows:
            report.write(out)
        if draw and report.rows:
            draw(picture)
    for line in (*report.verdicts, *(f"note: {note}" for note in report.notes), *report.failures):
        print(line)
    written = f"{out} and its picture" if draw and picture.exists() else f"{out}"
    print(f"{time.perf_counter() - start:.0f} s on {record.machine()}; {written} written")
    return 1 if report.failures else 0
