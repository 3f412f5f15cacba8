"""JSON files that are read by people, too."""

import json
import re
from pathlib import Path
from typing import Any

from fastvae.files import atomic_write


def write_json(path: Path, record: dict[str, Any]) -> None:
    """Writes it so that a reader never finds half of it."""
    atomic_write.write_atomically(path, _samples_in_one_line(json.dumps(record, indent=1)) + "\n")


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
            if re.match(r'"(samples|quartiles)_\w+": \[$', bare):
                numbers = []
    return "\n".join(lines)
