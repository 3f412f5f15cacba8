"""JSON files that are read by people, too."""

import json
import math
import re
from pathlib import Path
from typing import Any

from fastvae.files import atomic_write


def write_json(path: Path, record: dict[str, Any]) -> None:
    """Writes it so that a reader never finds half of it; numbers that are not finite become null, as JSON has none."""
    text = json.dumps(_finite(record), indent=1, allow_nan=False)
    atomic_write.write_atomically(path, _samples_in_one_line(text) + "\n")


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


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
            if re.match(r'"(samples|quartiles|curve)_\w+": \[$', bare):
                numbers = []
    return "\n".join(lines)
