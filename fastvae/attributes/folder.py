"""The folder of a recognition's results: tables and a picture; until the last attribute is done, tables so far.

Those so far have names of their own, so that a call that is stopped leaves an earlier one's complete table as it is.
"""

import sys
from pathlib import Path
from typing import Any

from fastvae.attributes import picture, report
from fastvae.attributes.recognise import Recognition
from fastvae.attributes.table1 import table1
from fastvae.errors import FastvaeError
from fastvae.files.atomic_write import write_atomically
from fastvae.files.places import shown, unfinished

_COMPLETE = ("attributes.txt", "attributes.csv", "attributes.json")
_SO_FAR = tuple(unfinished(Path(name)).name for name in _COMPLETE)
_PICTURE = "attributes.png"
FILES = (*_COMPLETE, _PICTURE, *_SO_FAR)


def title(metadata: dict[str, Any]) -> str:
    """One line: what was fitted on which features of how many images."""
    features, images = metadata["features"], metadata["images"]
    return (
        f"linear SVMs on {features['count']} features of {' + '.join(features['from'])}; {metadata['data']}: "
        f"{images['train']:,} training, {images['choose']:,} choosing and {images['test']:,} test images"
    )


def text(recognition: Recognition, metadata: dict[str, Any]) -> str:
    """The table with its notes; the paper's columns if the images are CelebA's."""
    stopped = f"\nIncomplete: stopped after {len(recognition.results)} attributes."
    return report.as_text(recognition, paper(metadata)) + ("" if metadata["complete"] else stopped)


def write_tables(folder: Path, recognition: Recognition, metadata: dict[str, Any]) -> tuple[str, ...]:
    """Writes the table as text, CSV and JSON, under other names as long as it is incomplete; returns the names.

    Raises:
        FastvaeError: a file cannot be written.
    """
    names = _COMPLETE if metadata["complete"] else _SO_FAR
    as_text, as_csv, as_json = (folder / name for name in names)
    table = text(recognition, metadata)
    write_atomically(as_text, f"{shown(title(metadata))}\n{metadata['splits']}\n\n{table}\n")
    write_atomically(as_csv, report.as_csv(recognition, paper(metadata)))
    write_atomically(as_json, report.as_json(recognition, **metadata))
    return names


def write_all(folder: Path, recognition: Recognition, metadata: dict[str, Any]) -> tuple[str, ...]:
    """The tables; of a complete recognition the picture, too, unless matplotlib is missing, which is said.

    Raises:
        FastvaeError: a file cannot be written.
    """
    made = write_tables(folder, recognition, metadata)
    if not metadata["complete"]:
        return made
    for name in _SO_FAR:
        (folder / name).unlink(missing_ok=True)
    (folder / _PICTURE).unlink(missing_ok=True)  # of an earlier table, should this one's not be drawn
    try:
        picture.draw(recognition, paper(metadata), shown(title(metadata)), folder / _PICTURE)
    except FastvaeError as error:
        print(error, file=sys.stderr)
        return made
    return (*made, _PICTURE)


def paper(metadata: dict[str, Any]) -> report.Paper:
    """The paper's Table 1; empty if the images are not CelebA's."""
    return table1() if metadata["celeba"] else {}
