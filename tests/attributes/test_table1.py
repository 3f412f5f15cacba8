"""The paper's table against the averages that the paper prints, and against CelebA's own names."""

from statistics import fmean

import pytest

from fastvae.attributes.table1 import SYSTEMS, printed_averages, table1
from fastvae.data.faces import faces


@pytest.mark.parametrize("system", SYSTEMS)
def test_columns_have_their_printed_averages(system):
    average = fmean(row[system] for row in table1().values())
    # All eight agree; a wrong digit anywhere would move an average by 0.025 or more.
    assert average == pytest.approx(printed_averages()[system], abs=0.0051)


def test_every_row_is_whole_and_named_as_in_celeba():
    table = table1()
    assert len(table) == 40 and all(set(row) == set(SYSTEMS) for row in table.values())
    assert list(table) == sorted(table) and set(faces.ATTRIBUTES) <= set(table)


def test_entries_that_are_easily_misplaced():
    table = table1()
    assert table["Wearing_Earrings"]["VGG-FC"] == 49  # the lowest of all
    assert table["Male"] == dict(zip(SYSTEMS, (91, 93, 97, 98, 90, 95, 84, 94), strict=True))
    assert table["Mouth_Slightly_Open"] == dict(zip(SYSTEMS, (87, 82, 93, 92, 80, 88, 60, 85), strict=True))
