"""What a benchmark leaves behind: the machine, the command, the ceilings and every sample, as JSON."""

import argparse
import datetime
import itertools
import platform
import re
import signal
import sys
from pathlib import Path
from typing import Any

import torch

from bench.measuring.ceilings import Ceilings
from bench.reporting.command_line import without_out
from bench.reporting.compact_json import write_json
from fastvae.errors import UsageError
from fastvae.files import atomic_write
from fastvae.files.places import resolved
from fastvae.machine import environment

RECORDS = Path(__file__).parents[1] / "records"


def machine() -> str:
    """The GPU's name, or what processor there is, human-readable."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"a CPU ({torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads)"


def exit_on_sigterm() -> None:
    """Makes SIGTERM raise SystemExit in this process, so that a time limit, too, leaves the record."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))


def path_for(suite: str) -> Path:
    """Where a suite's record goes by default: bench/records/DATE-MACHINE-SUITE.json, or -2.json, if there is one."""
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower().removeprefix("nvidia ")).strip("-")
    stem = f"{datetime.date.today()}-{slug}-{suite}"
    numbers = itertools.chain([""], (f"-{number}" for number in itertools.count(2)))
    return next(path for number in numbers if not (path := RECORDS / f"{stem}{number}.json").exists())


def place(given: str) -> Path:
    """A flag's path, resolved; for argparse's `type`."""
    try:
        return resolved(given)
    except UsageError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def check_writable(path: Path) -> None:
    """Ends the process with a message if a record could not be written there: before measuring, not after.

    Raises:
        SystemExit: with status 2.
    """
    try:
        atomic_write.check_writable(path)
    except UsageError as error:
        print(error, file=sys.stderr)
        raise SystemExit(2) from None


def write(
    path: Path,
    *,
    what: str,
    rows: list[dict[str, Any]],
    notes: list[str],
    ceilings: Ceilings | None = None,
    extra: dict[str, Any] | None = None,
) -> None:
    """Writes a record.

    Args:
        path: where; folders are made.
        what: one sentence that says what was measured.
        rows: every contender's result.
        notes: messages about what could not be measured or was wrong.
        ceilings: of the machine, from the same run, where the suite measures them.
        extra: further entries of the suite, such as its settings or its verdicts.
    """
    write_json(
        path,
        {
            "what": what,
            "command": command(),
            "machine": this_machine(),
            "ceilings": ceilings and ceilings.as_json(),
            "notes": notes,
            **(extra or {}),
            "rows": rows,
        },
    )


def command() -> str:
    """The command line of this process, but for the record's place."""
    module = Path(sys.argv[0]).stem
    called = "python -m bench" if module == "__main__" else f"python -m bench.{module}"
    return " ".join([called, *without_out(sys.argv[1:])])


def this_machine() -> dict[str, Any]:
    """Processor, versions, threads and GPU."""
    return {"processor": platform.processor() or platform.machine(), **environment()}
