"""Table 1 by our features beside the paper's: Markdown, from the attributes.json of `fastvae attributes`.

A recognition's record is a copy of that file in the folder attributes beside the records of runs.
"""

import shlex
from pathlib import Path
from typing import Any

from bench.tables import prose
from fastvae.attributes.recognise import AttributeResult, Recognition
from fastvae.attributes.report import COLUMNS, rows
from fastvae.attributes.table1 import table1
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


def sections(folder: Path) -> list[str]:
    """A section for each record in a folder.

    Raises:
        FastvaeError: a record cannot be read, or is of a recognition that was stopped.
    """
    return [_section(path.stem, read_json(path)) for path in sorted(folder.glob("*.json"))]


def _section(name: str, record: dict[str, Any]) -> str:
    if not record["complete"]:
        raise FastvaeError(f"the record attributes/{name} is of a recognition that was stopped")
    recognition = Recognition([AttributeResult(**each) for each in record["attributes"]], record["excluded"])
    places = [COLUMNS.index(column) for column in _SHOWN]
    lines = [list(_SHOWN.values()), ["---", *["---:"] * (len(places) - 1)]]
    for row in rows(recognition, table1() if record["celeba"] else {}):
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
            f"    fastvae attributes {shlex.join(record['runs'])} --data {shlex.quote(record['data'])}",
        ]
    )


def _percent(value: float | str) -> str:
    return f"{value:.1f}" if isinstance(value, float) else str(value)
