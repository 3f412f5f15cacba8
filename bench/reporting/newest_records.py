"""Finds the newest record of each machine and suite, by the names of the files."""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple


class SuiteRecord(NamedTuple):
    """A suite's record and where it came from; the file at `path` may hold other suites, too."""

    date: str
    path: Path
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
        folder: of the records, DATE-MACHINE-SUITE.json; other files and records without rows are passed over.
        suites: the names of all suites.
    """
    suites = tuple(suites)
    name_of = re.compile(rf"(\d{{4}}-\d\d-\d\d)-(.+)-({'|'.join(suites)}|all)\.json")
    records: dict[str, dict[str, SuiteRecord]] = {}
    for path in sorted(folder.glob("*.json"), key=_age):
        if not (name := name_of.fullmatch(path.name)):
            continue
        date, machine, suite = name.groups()
        content = json.loads(path.read_text())
        for each, of_suite in (content["suites"] if suite == "all" else {suite: content}).items():
            if each in suites and of_suite.get("rows"):
                records.setdefault(machine, {})[each] = SuiteRecord(date, path, of_suite)
    gpus_first = sorted(records.items(), key=lambda item: (not any(r.on_gpu for r in item[1].values()), item[0]))
    return dict(gpus_first)


def _age(path: Path) -> tuple[str, bool]:
    return path.name[:10], not path.stem.endswith("-all")
