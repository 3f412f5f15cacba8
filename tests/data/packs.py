"""The pictures of a folder in containers: zip and tar files, WebDatasets, Parquet shards as the Hub serves them."""

import io
import json
import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fastvae.data.sources.listing import list_pictures


def write_zip(file: Path, folder: Path, *, prefix: str = "") -> None:
    """All files below the folder, compressed."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            archive.write(path, f"{prefix}{path.relative_to(folder)}")


def write_tar(file: Path, folder: Path) -> None:
    """The folder as `tar cf FILE -C FOLDER .` has it."""
    with tarfile.open(file, "w") as archive:
        archive.add(folder, ".")


def write_members(file: Path, members: Sequence[tuple[str, bytes]]) -> None:
    """A tar file with these members."""
    with tarfile.open(file, "w") as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


def samples(folder: Path, labels: Sequence[dict[str, Any]] = ()) -> list[tuple[str, bytes]]:
    """Members of a WebDataset with the pictures of a folder, in sorted order; "cls" is the .cls, others the .json."""
    members = []
    for number, name in enumerate(list_pictures(folder).names):
        members.append((f"{number:06}{Path(name).suffix}", (folder / name).read_bytes()))
        if labels:
            others = {key: value for key, value in labels[number].items() if key != "cls"}
            members += [(f"{number:06}.cls", str(labels[number]["cls"]).encode())] if "cls" in labels[number] else []
            members += [(f"{number:06}.json", json.dumps(others).encode())] if others else []
    return members


CLASS_LABEL = {"names": ["cat", "dog"], "_type": "ClassLabel"}


def write_parquet(
    file: Path,
    pictures: Sequence[tuple[str | None, bytes | None]],
    columns: dict[str, Sequence] | None = None,
    *,
    features: dict[str, Any] | None = None,
    image: str = "image",
    rows: int = 7,
) -> None:
    """A shard as the library `datasets` writes it.

    Args:
        file: to write, in folders that are made as needed.
        pictures: file name and bytes of each.
        columns: values by name.
        features: what the metadata say of columns other than the images; None for no metadata.
        image: name of the images' column.
        rows: in a row group.
    """
    import pyarrow as arrow
    from pyarrow import parquet

    kind = arrow.struct([("bytes", arrow.binary()), ("path", arrow.string())])
    structs = [{"bytes": data, "path": name} for name, data in pictures]
    table = arrow.table({image: arrow.array(structs, kind), **(columns or {})})
    if features is not None:
        info = {"info": {"features": {image: {"_type": "Image"}, **features}}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(info)})
    file.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(table, file, row_group_size=rows)


def named_bytes(folder: Path) -> list[tuple[str, bytes]]:
    """Name and bytes of each picture in a folder, sorted."""
    return [(name, (folder / name).read_bytes()) for name in list_pictures(folder).names]
