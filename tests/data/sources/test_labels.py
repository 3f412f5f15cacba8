"""Which columns beside pictures are attributes, which are classes, and which are neither."""

import numpy as np
import pytest

from fastvae.data.sources.labels import Column, attributes_of, codes_of, text_column
from fastvae.errors import FastvaeError


def column(name, values, classes=None):
    values = [(-9 if value is None else value) for value in values]
    missing = np.array(values) == -9
    codes = codes_of(np.array(values), missing)
    return Column(name, codes, classes)


def test_booleans_and_celebas_ones_are_attributes():
    columns = [column("Bald", [True, False, True]), column("Male", [-1, 1, -1]), column("Smiling", [0, 1, 1])]
    attributes, names, left_out = attributes_of(columns, 3)
    assert names == ("Bald", "Male", "Smiling") and not left_out
    assert attributes.dtype == np.uint8 and attributes.tolist() == [[1, 0, 0], [0, 1, 1], [1, 0, 1]]


def test_classes_become_one_attribute_each_and_may_be_missing():
    attributes, names, _ = attributes_of([column("label", [1, 0, -1, None], ("cat", "dog"))], 4)
    assert names == ("cat", "dog") and attributes.tolist() == [[0, 1], [1, 0], [0, 0], [0, 0]]


def test_numbers_without_names_are_classes_in_a_column_of_classes_alone():
    attributes, names, left_out = attributes_of([column("label", [2, 0]), column("age", [20, 30])], 2)
    assert names == ("label 0", "label 1", "label 2") and left_out == ["age"]
    assert attributes.tolist() == [[0, 0, 1], [1, 0, 0]]
    assert attributes_of([column("label", [1, 0])], 2)[1] == ("label 0", "label 1")


def test_several_columns_of_classes_say_which():
    columns = [column("fine_label", [0, 1], ("apple", "bee")), column("coarse_label", [0, 1], ("fruit", "bee"))]
    assert attributes_of(columns, 2)[1] == (
        "fine_label: apple",
        "fine_label: bee",
        "coarse_label: fruit",
        "coarse_label: bee",
    )


def test_what_is_neither():
    columns = [
        column("Bald", [True, None]),  # unknown is not "no"
        column("celeb_id", [20, 30]),
        column("label", [5, 0], ("cat", "dog")),  # beyond its names
        column("class", [0, 1], tuple(map(str, range(300)))),
    ]
    attributes, names, left_out = attributes_of(columns, 2)
    assert attributes.shape == (2, 0) and names == () and left_out == ["Bald", "celeb_id", "label", "class"]
    assert codes_of(np.array([0, 256]), np.zeros(2, bool)) is None


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint64, bool])
def test_a_missing_value_is_missing_in_every_type(dtype):
    codes = codes_of(np.array([0, 1, 0], dtype), np.array([False, False, True]))
    assert codes.dtype == np.int16 and codes.tolist() == [0, 1, -2]


def test_texts():
    made = text_column("label", ["dog", None, "cat"])
    assert made.classes == ("cat", "dog") and made.codes.tolist() == [1, -2, 0]
    assert text_column("caption", ["dog", "cat"]) is None
    assert text_column("label", [str(number) for number in range(300)]) is None


def test_one_name_for_two_attributes():
    with pytest.raises(FastvaeError, match="two attributes are called 'cat'"):
        attributes_of([column("cat", [0, 1]), column("label", [0, 1], ("cat", "dog"))], 2)
