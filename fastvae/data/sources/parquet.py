"""Reads Parquet shards of pictures and labels, as the Hugging Face Hub serves them."""

from pathlib import Path
from typing import Any

import numpy as np

from fastvae.data.containers.container import clean_name
from fastvae.data.containers.parquet import ParquetPictures, open_parquet, read_columns
from fastvae.data.sources.labels import NOT_LABELS, Column, attributes_of, codes_of, text_column
from fastvae.data.sources.parquet_layout import ColumnPath, Layout, difference, layout_of
from fastvae.data.sources.shards import OF_SHARDS, find_shards
from fastvae.data.sources.source import Source
from fastvae.errors import FastvaeError
from fastvae.files.places import shown
from fastvae.progress_bar import progress_bar

_LONGEST_NAME = 1024


def read_parquet(path: Path) -> Source:
    """Lists a Parquet file, or a folder of shards; reads labels and names, no images.

    Images are a column of structs with `bytes` and `path`, as the library `datasets` writes them, or of bytes, called
    image, img and the like. Splits are the shards' names (`shards.find_shards`). Labels become attributes
    (`labels.attributes_of`): booleans, -1 or 0 and 1, and classes, whose names are in the file's metadata.

    Raises:
        FastvaeError: pyarrow is missing; a file is damaged; there is no column of images, or there are several; shards
            differ in their columns; there are no rows.
    """
    shards = find_shards(path, ".parquet")
    if not shards.files:
        raise FastvaeError(f"{shown(path)} contains no .parquet files; check the path")
    layout, counts = None, []
    for file in shards.files:
        with open_parquet(file) as opened:
            counts.append(opened.metadata.num_rows)
            found = layout_of(file, opened.schema_arrow)
        if counts[-1] > file.stat().st_size:
            raise FastvaeError(f"{shown(file)} is damaged: it claims {counts[-1]:,} rows; copy or download it again")
        if layout is not None and found != layout:
            raise FastvaeError(
                f"{shown(path)}: the shards {shown(shards.files[0].name)} and {shown(file.name)} have different "
                f"columns ({difference(layout, found)}); give one of them, or a folder of those that belong together"
            )
        layout = found
    if not sum(counts):
        raise FastvaeError(f"{shown(path)} contains no pictures: its Parquet files have 0 rows")
    names, columns, unused = _read(path, shards.files, counts, layout)
    attributes, attribute_names, no_labels = attributes_of(columns, len(names))
    left_out = dict(shards.left_out)
    if others := [*layout.others, *unused, *no_labels]:
        left_out[NOT_LABELS] = others
    pictures = ParquetPictures(path, shards.files, layout.image, names, left_out)
    return Source(
        kind="parquet",
        root=path,
        images=pictures,
        names=names,
        splits=shards.splits_of(counts),
        split_rule=shards.split_rule,
        attributes=attributes,
        attribute_names=attribute_names,
        left_out=left_out,
    )


def _read(
    path: Path, files: list[Path], counts: list[int], layout: Layout
) -> tuple[list[str], list[Column], list[str]]:
    """Names of the pictures, the label columns, and the names of columns that are no labels."""
    wanted = [column for column, _ in layout.labels]
    chunks: dict[ColumnPath, list] = {column: [] for column in wanted}
    names: list[str] = []
    for file, count in progress_bar(zip(files, counts, strict=True), what="list", total=len(files), **OF_SHARDS):
        stem, start = shown(str(file.relative_to(path).with_suffix("")) if file != path else file.stem), len(names)
        if not wanted and layout.name is None:
            names += [f"{stem}/{row}" for row in range(count)]
            continue
        for arrays in read_columns(file, [*wanted, *([layout.name] if layout.name else [])]):
            rows = len(names) - start
            names += _names(arrays[-1] if layout.name else None, stem, rows, len(arrays[0]))
            for column, array in zip(wanted, arrays, strict=False):
                if column in chunks:
                    chunk = _chunk(array)
                    # Most often a text, or an identity: the rest of the column need not be kept.
                    if chunk is None:
                        del chunks[column]
                    else:
                        chunks[column].append(chunk)
        if len(names) - start != count:
            raise FastvaeError(f"{shown(file)} is damaged: it has {len(names) - start} of {count} rows")
    columns, unused = [], [".".join(column) for column in wanted if column not in chunks]
    for column, classes in layout.labels:
        if column not in chunks:
            continue
        parts, name = chunks.pop(column), column[-1]
        if len({isinstance(part, list) for part in parts}) > 1:
            raise FastvaeError(
                f"{shown(path)}: {shown('.'.join(column))} is text in some shards and a number in others; give one of "
                "them, or a folder of those that belong together"
            )
        if isinstance(parts[0], list):
            made = text_column(name, [text for part in parts for text in part])
        else:
            made = Column(name, np.concatenate(parts), classes)
        if made is None:
            unused.append(name)
        else:
            columns.append(made)
    return names, columns, unused


def _chunk(array: Any) -> np.ndarray | list[str | None] | None:
    """Codes of integers or booleans, or texts; None for other values."""
    import pyarrow as arrow

    if arrow.types.is_boolean(array.type) or arrow.types.is_integer(array.type):
        missing = np.asarray(array.is_null().to_numpy(zero_copy_only=False))
        values = array.fill_null(False if arrow.types.is_boolean(array.type) else 0)
        return codes_of(values.to_numpy(zero_copy_only=False), missing)
    texts = array.to_pylist()
    return texts if all(text is None or len(text) <= _LONGEST_NAME for text in texts) else None


def _names(array: Any, stem: str, start: int, count: int) -> list[str]:
    """File names where the rows have one, else the shard's name and the row."""
    texts = [None] * count if array is None else array.to_pylist()
    cleaned = [clean_name(text) if text and len(text) <= _LONGEST_NAME else "" for text in texts]
    return [name or f"{stem}/{start + row}" for row, name in enumerate(cleaned)]
