"""What a benchmark leaves behind: the machine, the command, the ceilings and every sample, as JSON."""

import json
import platform
import sys
from dataclasses import asdict
from pathlib import Path

from bench.ceilings import Ceilings
from bench.measurement import Row
from fastvae.train.run_folder import environment


def write(path: Path, *, what: str, ceilings: Ceilings, rows: list[Row], notes: list[str]) -> None:
    """Writes a record.

    Args:
        path: where; folders are made.
        what: one sentence for whoever opens it.
        ceilings: of the machine, from the same run.
        rows: every contender's result.
        notes: what could not be measured or was not right, in words.
    """
    record = {
        "what": what,
        "command": " ".join(["python -m bench", *sys.argv[1:]]),
        "machine": {"processor": platform.processor() or platform.machine(), **environment()},
        "ceilings": ceilings.as_json(),
        "notes": notes,
        "rows": [asdict(row) for row in rows],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(record, indent=1)
    path.write_text(_samples_in_one_line(text) + "\n")


def _samples_in_one_line(text: str) -> str:
    """Lists of numbers on one line each: a diff of records should show rows, not samples."""
    lines, numbers = [], None
    for line in text.splitlines():
        bare = line.strip()
        if numbers is not None:
            if bare.startswith("]"):
                lines[-1] += ", ".join(numbers) + bare
                numbers = None
            else:
                numbers.append(bare.rstrip(","))
        else:
            lines.append(line)
            if bare.endswith("[") and ("samples_us" in bare or "quartiles_us" in bare):
                numbers = []
    return "\n".join(lines)
