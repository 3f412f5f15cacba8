"""Table 1 by our features beside the paper's: Markdown, from the attributes.json of `fastvae attributes`.

A recognition's record is a copy of that file in the folder attributes beside the records of runs.
"""

import hashlib
import json
import shlex
from pathlib import Path
from typing import Any

from bench.reporting.drawn_of import is_drawn_of, text_entry
from bench.tables import prose
from fastvae.attributes import picture
from fastvae.attributes.folder import paper, title
from fastvae.attributes.recognise import AttributeResult, Recognition
from fastvae.attributes.report import COLUMNS, rows
from fastvae.errors import FastvaeError
from fastvae.files.reading import read_json

# Of the paper's eight systems those that are VAEs, or features of VGG-19.
_SHOWN = {
    "attribute": "",
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced",
    "majority_accuracy": "majority",
    "paper_VAE-WGAN": "paper: VAE-WGAN",
    "paper_VAE-123": "VAE-123",
    "paper_VAE-345": "VAE-345",
    "paper_VGG-FC": "VGG-FC",
}


def records(folder: Path) -> dict[str, dict[str, Any]]:
    """The records in a folder, by name.

    Raises:
        FastvaeError: a record cannot be read, or is of a recognition that was stopped.
    """
    found = {path.stem: read_json(path) for path in sorted(folder.glob("*.json"))}
    for name, record in found.items():
        if not record["complete"]:
            raise FastvaeError(f"the record attributes/{name} is of a recognition that was stopped")
    return found


def draw(record: dict[str, Any], path: Path) -> None:
    """Writes the picture that `fastvae attributes` leaves, which carries what it shows."""
    picture.draw(_recognition(record), paper(record), title(record), path, metadata=text_entry(_content(record)))


def shows(path: Path, record: dict[str, Any]) -> bool:
    """Whether the picture at `path` was drawn of this record."""
    return is_drawn_of(path, _content(record))


def _content(record: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps([title(record), record["attributes"]]).encode()).hexdigest()


def _recognition(record: dict[str, Any]) -> Recognition:
    return Recognition([AttributeResult(**each) for each in record["attributes"]], record["excluded"])


def section(name: str, record: dict[str, Any]) -> str:
    """A record's section of the page."""
    recognition = _recognition(record)
    places = [COLUMNS.index(column) for column in _SHOWN]
    lines = [list(_SHOWN.values()), ["---", *["---:"] * (len(places) - 1)]]
    for row in rows(recognition, paper(record)):
        lines.append([row[0].replace("_", " "), *(_percent(row[place]) for place in places[1:])])
    images, features = record["images"], record["features"]
    said = (
        f"Percent of {images['test']:,} test images whose attribute a linear SVM names, fitted on {features['count']} "
        f"features of {images['train']:,} training images; C chosen on {images['choose']:,} others. balanced: the mean "
        "over images with and without the attribute; majority: always saying what most training images have. The last "
        "columns are the paper's, of 20,000 test images."
    )
    return "\n\n".join(
        [
            f"## {name}: attributes (Table 1)",
            "\n".join(f"| {' | '.join(line)} |" for line in lines),
            prose(said),
            f"![Bars: each attribute's accuracy, the majority's, the paper's](results-{name}-attributes.png)",
            f"    fastvae attributes {shlex.join(record['runs'])} --data {shlex.quote(record['data'])}",
        ]
    )


def _percent(value: float | str) -> str:
    return f"{value:.1f}" if isinstance(value, float) else str(value)
