"""Finds the newest record of each machine and suite, by the names of the files."""

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

SUITES = ("step", "accelerate", "inference", "loader", "paper", "lossnet", "kernels")
_NAME = re.compile(rf"(\d{{4}}-\d\d-\d\d)-(.+)-({'|'.join(SUITES)}|all)\.json")


class Found(NamedTuple):
    """A suite's record and where it came from; `path` may hold other suites, too."""

    date: str
    path: Path
    record: dict[str, Any]

    @property
    def machine(self) -> str:
        """What it was measured on, for people."""
        machine = self.record["machine"]
        return machine["gpu"] or f"CPU ({machine['cpu']}, {machine['threads']} threads)"


def newest(folder: Path) -> dict[str, dict[str, Found]]:
    """By machine, GPUs first, and suite. Of one day the suite's own record is preferred to that of a run of all.

    Args:
        folder: of the records, DATE-MACHINE-SUITE.json; other files and records without rows are passed over.
    """
    found: dict[str, dict[str, Found]] = {}
    for path in sorted(folder.glob("*.json"), key=_age):
        if not (name := _NAME.fullmatch(path.name)):
            continue
        date, machine, suite = name.groups()
        record = json.loads(path.read_text())
        for each, content in (record["suites"] if suite == "all" else {suite: record}).items():
            if content.get("rows"):
                found.setdefault(machine, {})[each] = Found(date, path, content)
    return dict(sorted(found.items(), key=lambda item: (not _on_gpu(item[1]), item[0])))


def _age(path: Path) -> tuple[str, bool]:
    return path.name[:10], not path.stem.endswith("-all")


def _on_gpu(suites: dict[str, Found]) -> bool:
    return any(found.record["machine"]["gpu"] for found in suites.values())
