"""Finds the newest record of each machine and suite, by the names of files and folders."""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

# The note in the record of a suite that was stopped, or killed after it had kept some rows.
UNFINISHED = "the suite did not come to its end: this is what it had measured and kept by then"


class SuiteRecord(NamedTuple):
    """A suite's record and where it came from.

    Attributes:
        date: of the measurement.
        link: the file, from the folder of records; it may hold other suites, too.
        content: the record.
    """

    date: str
    link: str
    content: dict[str, Any]

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The results."""
        return self.content["rows"]

    @property
    def on_gpu(self) -> bool:
        """Whether the machine had a GPU."""
        return bool(self.content["machine"]["gpu"])

    @property
    def machine(self) -> str:
        """What it was measured on, human-readable."""
        machine = self.content["machine"]
        return machine["gpu"] or f"CPU ({machine['cpu']}, {machine['threads']} threads)"


def newest(folder: Path, suites: Iterable[str]) -> dict[str, dict[str, SuiteRecord]]:
    """By machine, GPUs first, and suite. Of one day the suite's own record is preferred to that of a run of all.

    Args:
        folder: of the records, DATE-MACHINE-SUITE.json (-2.json for a second one of that day) and, of runs of all,
            DATE-MACHINE-all/all.json. Passed over are other files, records without rows, those of tiny runs, suites
            that need an op of which a test failed in that run, and unfinished ones, if there is another.
        suites: the names of all suites.
    """
    suites = tuple(suites)
    name_of = re.compile(rf"(\d{{4}}-\d\d-\d\d)-(.+)-({'|'.join(suites)}|all)(?:-\d+)?(?:\.json|/all\.json)")
    records: dict[str, dict[str, SuiteRecord]] = {}
    links = (path.relative_to(folder).as_posix() for glob in ("*.json", "*/all.json") for path in folder.glob(glob))
    for link in sorted(links, key=_age):
        if not (name := name_of.fullmatch(link)):
            continue
        date, machine, suite = name.groups()
        content = json.loads((folder / link).read_text())
        for each, of_suite in (content["suites"] if suite == "all" else {suite: content}).items():
            counts = of_suite.get("rows") and not of_suite.get("failed_gate") and not of_suite.get("tiny")
            unfinished = UNFINISHED in of_suite.get("notes", ()) and each in records.get(machine, {})
            if each in suites and counts and not unfinished:
                records.setdefault(machine, {})[each] = SuiteRecord(date, link, of_suite)
    gpus_first = sorted(records.items(), key=lambda item: (not any(r.on_gpu for r in item[1].values()), item[0]))
    return dict(gpus_first)


def _age(link: str) -> tuple[str, bool, int, str]:
    """Date, whether it is a suite's own, and which of that day."""
    of_all = re.search(r"-all(?:-\d+)?(?:\.json|/all\.json)$", link)
    number = re.search(r"-(\d+)(?:\.json|/all\.json)$", link)
    return link[:10], not of_all, int(number[1]) if number else 1, link
