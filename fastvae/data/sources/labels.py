"""Label columns as they accompany pictures in Parquet and WebDataset files, made into attributes of 0 or 1."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fastvae.errors import FastvaeError
from fastvae.files.places import shown

MAX_CLASSES = 256
# Integers in columns of these names are classes even if they are all 0 or 1; texts are classes only there.
CLASS_COLUMNS = frozenset(
    {"label", "labels", "class", "classes", "class_label", "cls", "target", "category", "fine_label", "coarse_label"}
)
NOT_LABELS = "columns that are neither attributes nor classes"
_MISSING = -2


@dataclass(frozen=True)
class Column:
    """The values of one label for all pictures.

    Attributes:
        name: of the column.
        codes: int16 [N], from `codes_of`.
        classes: the classes' names if the codes are their numbers; None for plain numbers.
    """

    name: str
    codes: np.ndarray
    classes: tuple[str, ...] | None = None


def codes_of(values: np.ndarray, missing: np.ndarray) -> np.ndarray | None:
    """int16 [n]: the values, and -2 where they are missing; None if they are not between -1 and 255.

    Args:
        values: integers or booleans [n].
        missing: bool [n].
    """
    known = values[~missing]
    if known.size and not -1 <= known.min() <= known.max() < MAX_CLASSES:
        return None
    # Converted first: what stands for a missing value does not fit into unsigned integers.
    return np.where(missing, np.int16(_MISSING), values.astype(np.int16))


def text_column(name: str, texts: Sequence[str | None]) -> Column | None:
    """Texts as numbered classes, in alphabetical order; None if they are too many, or the name is not one of classes.

    Args:
        name: of the column.
        texts: N values; None where it is missing.
    """
    classes = sorted(set(texts) - {None})
    if name.lower() not in CLASS_COLUMNS or len(classes) > MAX_CLASSES:
        return None
    number = {None: _MISSING} | {text: code for code, text in enumerate(classes)}
    return Column(name, np.array([number[text] for text in texts], np.int16), tuple(classes))


def attributes_of(columns: Sequence[Column], count: int) -> tuple[np.ndarray, tuple[str, ...], list[str]]:
    """Attributes of pictures from their label columns.

    Classes become one attribute each, 1 for the pictures of that class; a picture without a class (-1, or missing) has
    0 in all of them. Other columns of -1 or 0 and 1 become one attribute, 1 where the value is 1.

    Args:
        columns: each of N codes.
        count: N.

    Returns:
        uint8 [N, A]; A names, with the column's name before a class if there are several columns of classes; and the
        names of the columns that are neither attributes nor classes.

    Raises:
        FastvaeError: two attributes have the same name.
    """
    one_each, classes, left_out = [], [], []
    for column in columns:
        if (named := _classes_of(column)) is not None:
            classes.append((column, named))
        elif column.classes is None and column.codes.size and column.codes.min() >= -1 and column.codes.max() <= 1:
            one_each.append(column)
        else:
            left_out.append(column.name)
    blocks = [(column.codes == 1)[:, None].astype(np.uint8) for column in one_each]
    names = [column.name for column in one_each]
    for column, named in classes:
        blocks.append((column.codes[:, None] == np.arange(len(named), dtype=np.int16)).astype(np.uint8))
        names += [f"{column.name}: {name}" for name in named] if len(classes) > 1 else named
    if len(set(names)) < len(names):
        repeated = next(name for name in names if names.count(name) > 1)
        raise FastvaeError(f"two attributes are called {shown(repeated)!r}; rename or remove one of the columns")
    return np.concatenate([np.empty((count, 0), np.uint8), *blocks], 1), tuple(map(shown, names)), left_out


def _classes_of(column: Column) -> Sequence[str] | None:
    """Names of the classes that a column holds, or None."""
    if column.classes is not None:
        fits = 2 <= len(column.classes) <= MAX_CLASSES and column.codes.max(initial=-1) < len(column.classes)
        return column.classes if fits else None
    if column.name.lower() not in CLASS_COLUMNS or (largest := column.codes.max(initial=-1)) < 1:
        return None
    return [f"{column.name} {number}" for number in range(largest + 1)]
