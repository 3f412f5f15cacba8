"""The results as text, as CSV and as JSON; percentages, as in the paper's table."""

import csv
import io
import json
from collections.abc import Mapping
from dataclasses import asdict
from statistics import fmean
from typing import Any

from fastvae.attributes.recognise import AttributeResult, Recognition
from fastvae.attributes.table1 import SYSTEMS, printed_averages

# The paper's table, or nothing where the images are not CelebA's.
Paper = Mapping[str, Mapping[str, int]]
_SCORES = ("accuracy", "balanced_accuracy", "majority_accuracy")
COLUMNS = ("attribute", *_SCORES, "C", *(f"paper_{system}" for system in SYSTEMS))


def rows(recognition: Recognition, paper: Paper) -> list[list[float | str]]:
    """A row for each attribute and one of averages, under `COLUMNS`; "" where there is no number."""
    listed = [_row(result, paper.get(result.name, {})) for result in recognition.results]
    average: list[float | str] = ["average"]
    for column in range(1, len(COLUMNS)):
        numbers = [row[column] for row in listed if row[column] != ""]
        average.append(fmean(numbers) if numbers and COLUMNS[column] != "C" else "")
    return [*listed, average]


def _row(result: AttributeResult, paper: Mapping[str, int]) -> list[float | str]:
    scores = [100 * getattr(result, score) for score in _SCORES]
    return [result.name, *scores, result.c, *(paper.get(system, "") for system in SYSTEMS)]


def as_csv(recognition: Recognition, paper: Paper) -> str:
    """`rows` with a header; percentages to two digits."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in rows(recognition, paper):
        writer.writerow([_two_digits(value, name) for value, name in zip(row, COLUMNS, strict=True)])
    return text.getvalue()


def _two_digits(value: float | str, column: str) -> float | str:
    return _hundredths(value) if isinstance(value, float) and column != "C" else value


def _hundredths(value: float) -> str:
    return f"{value + 1e-9:.2f}"  # 81.125, an average of forty whole numbers, is 81.13 in the paper


def as_text(recognition: Recognition, paper: Paper) -> str:
    """The table, and notes that a reader needs below it."""
    width = max(len("attribute"), *(len(row[0]) for row in rows(recognition, paper)))
    systems = SYSTEMS if paper else ()
    head = f"{'':<{width}}  {'these features':<33}" + ("  the paper's Table 1" if paper else "")
    names = f"{'attribute':<{width}}  accuracy  balanced  majority       C"
    lines = [head.rstrip(), names + "".join(f"  {system:>{len(system)}}" for system in systems)]
    for row in rows(recognition, paper):
        name, *scores, c = row[: len(_SCORES) + 2]
        line = f"{name:<{width}}" + "".join(f"  {_number(score, 8)}" for score in scores) + f"  {c:>6}"
        published = zip(systems, row[len(_SCORES) + 2 :], strict=False)
        lines.append((line + "".join(f"  {_number(value, len(system))}" for system, value in published)).rstrip())
    return "\n".join([*lines, "", *_notes(recognition, paper)])


def _number(value: float | str, width: int) -> str:
    return f"{_hundredths(value) if isinstance(value, float) else value:>{width}}"


def _notes(recognition: Recognition, paper: Paper) -> list[str]:
    notes = [
        "Percent of test images. balanced: the mean over images with and without the attribute, 50 by chance.",
        "majority: always predicting the majority of the training images; plain accuracy flatters rare attributes.",
    ]
    if not paper:
        notes.append("The paper's columns are left out: these images are not CelebA's.")
    else:
        notes.append("The paper tests on 20,000 of CelebA's 202,599 images, and trains on the others.")
    if set(paper) - {result.name for result in recognition.results}:
        averages = ", ".join(f"{system} {average:.2f}" for system, average in printed_averages().items())
        notes.append(f"The averages are over the attributes listed. Over all 40 the paper has {averages}.")
    notes += [f"{name} is left out, also from the averages: {why}." for name, why in recognition.excluded.items()]
    if slow := [result.name for result in recognition.results if not result.converged]:
        notes.append(f"The solver was stopped before its tolerance at {', '.join(slow)}.")
    return notes


def as_json(recognition: Recognition, **metadata: Any) -> str:
    """The metadata and all results; scores as fractions."""
    averages = {score: recognition.average(score) for score in _SCORES} if recognition.results else {}
    values = metadata | {
        "averages": averages,
        "attributes": [asdict(result) for result in recognition.results],
        "excluded": recognition.excluded,
    }
    return json.dumps(values, indent=1) + "\n"
