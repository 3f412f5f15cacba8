"""Table 1 of the paper: accuracy in percent of eight systems on CelebA's 40 attributes.

`table1.csv` names the attributes as CelebA's list_attr_celeba.txt does; its last row is the averages as printed.
"""

import csv
from functools import cache
from importlib.resources import files

SYSTEMS = ("FaceTracer", "PANDA-w", "PANDA-1", "LNets+ANet", "VAE-123", "VAE-345", "VGG-FC", "VAE-WGAN")
_AVERAGE = "average"


@cache
def table1() -> dict[str, dict[str, int]]:
    """{attribute: {system: accuracy in percent}}, attributes in CelebA's order."""
    return {
        name: {system: int(value) for system, value in row.items()} for name, row in _rows().items() if name != _AVERAGE
    }


def printed_averages() -> dict[str, float]:
    """{system: the average that the paper prints}."""
    return {system: float(value) for system, value in _rows()[_AVERAGE].items()}


@cache
def _rows() -> dict[str, dict[str, str]]:
    text = (files("fastvae.attributes") / "table1.csv").read_text()
    return {row.pop("attribute"): row for row in csv.DictReader(text.splitlines())}
