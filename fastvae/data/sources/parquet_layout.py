"""What the columns of a Parquet file of pictures are."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastvae.data.sources.labels import CLASS_COLUMNS
from fastvae.errors import FastvaeError
from fastvae.files.places import shown
from fastvae.files.reading import Malformed, parse_json

_IMAGE_NAMES = ("image", "img", "jpg", "jpeg", "png", "webp", "picture", "photo", "pixel_values", "bytes")
_NAMED_COLUMNS = 20

ColumnPath = tuple[str, ...]


@dataclass(frozen=True)
class Layout:
    """What the columns of a shard are; equal for all shards of a data set.

    Attributes:
        image: the image bytes.
        name: the pictures' file names, or None.
        labels: columns of integers, booleans or texts, and the names of their classes if they have any.
        others: names of the other columns.
    """

    image: ColumnPath
    name: ColumnPath | None
    labels: tuple[tuple[ColumnPath, tuple[str, ...] | None], ...]
    others: tuple[str, ...]


def layout_of(file: Path, schema: Any) -> Layout:
    """The layout of a file.

    Args:
        file: for messages.
        schema: its `pyarrow.Schema`.

    Raises:
        FastvaeError: there is no column of images, or there are several.
    """
    import pyarrow as arrow

    features = _features(schema)
    images = [field for field in schema if _is_image(field, features.get(field.name))]
    named = [field for field in images if field.name.lower() in _IMAGE_NAMES]
    if len(chosen := named if len(images) > 1 else images) != 1:
        if not images:
            listed = ", ".join(f"{shown(field.name)}: {field.type}" for field in list(schema)[:_NAMED_COLUMNS])
            raise FastvaeError(
                f"{shown(file)} has no column of images, which would hold their bytes and be called image or img; "
                f"its columns are {shown(listed)[:400]}"
            )
        raise FastvaeError(
            f"{shown(file)} has several columns of images ({', '.join(shown(field.name) for field in images)}); "
            "keep one of them, or call it image"
        )
    (image,) = chosen
    is_struct = arrow.types.is_struct(image.type)
    inner = {image.type.field(i).name: image.type.field(i).type for i in range(image.type.num_fields)}
    has_name = is_struct and "path" in inner and _is_text(inner["path"])
    labels, others = [], []
    for column, kind, feature in _leaves(schema, features):
        if column[0] == image.name:
            continue
        if arrow.types.is_boolean(kind) or arrow.types.is_integer(kind):
            labels.append((column, _class_names(feature)))
        # Pandas writes its categories as dictionaries.
        elif (
            _is_text(kind.value_type if arrow.types.is_dictionary(kind) else kind)
            and column[-1].lower() in CLASS_COLUMNS
        ):
            labels.append((column, None))
        else:
            others.append(".".join(column))
    return Layout(
        image=(image.name, "bytes") if is_struct else (image.name,),
        name=(image.name, "path") if has_name else None,
        labels=tuple(labels),
        others=tuple(others),
    )


def _leaves(schema: Any, features: dict[str, Any]) -> Iterator[tuple[ColumnPath, Any, Any]]:
    """Columns, and the fields of columns of structs: path, type, and what `datasets` says of it."""
    import pyarrow as arrow

    for field in schema:
        feature = features.get(field.name)
        if not arrow.types.is_struct(field.type):
            yield (field.name,), field.type, feature
            continue
        for number in range(field.type.num_fields):
            inner = field.type.field(number)
            yield (field.name, inner.name), inner.type, feature.get(inner.name) if isinstance(feature, dict) else None


def _is_image(field: Any, feature: Any) -> bool:
    import pyarrow as arrow

    if arrow.types.is_struct(field.type):
        index = field.type.get_field_index("bytes")
        says_otherwise = isinstance(feature, dict) and feature.get("_type", "Image") != "Image"
        return index >= 0 and _is_bytes(field.type.field(index).type) and not says_otherwise
    return _is_bytes(field.type) and field.name.lower() in _IMAGE_NAMES


def _is_bytes(kind: Any) -> bool:
    import pyarrow as arrow

    return kind in (arrow.binary(), arrow.large_binary(), arrow.binary_view())


def _is_text(kind: Any) -> bool:
    import pyarrow as arrow

    return kind in (arrow.string(), arrow.large_string(), arrow.string_view())


def _features(schema: Any) -> dict[str, Any]:
    """What the library `datasets` says of each column in the schema's metadata; empty if it has written nothing."""
    try:
        described = parse_json((schema.metadata or {}).get(b"huggingface", b"{}"))
        features = described["info"]["features"]
    except (Malformed, KeyError, TypeError):
        return {}
    return features if isinstance(features, dict) else {}


def _class_names(feature: Any) -> tuple[str, ...] | None:
    if not isinstance(feature, dict) or feature.get("_type") != "ClassLabel":
        return None
    names = feature.get("names")
    return tuple(map(str, names)) if isinstance(names, list) else None


def difference(first: Layout, second: Layout) -> str:
    """How two layouts differ, for a message."""

    def columns(layout: Layout) -> Sequence[str]:
        paths = [layout.image, *([layout.name] if layout.name else []), *(column for column, _ in layout.labels)]
        return [".".join(path) for path in paths] + list(layout.others)

    only = sorted(set(columns(first)) ^ set(columns(second)))
    return shown(f"only one of them has {', '.join(only)}"[:300] if only else "in their types or class names")
