"""CelebA: aligned JPEGs, the list of 40 attributes and the list of splits."""

import re
from pathlib import Path

import numpy as np

from fastvae.data.folder import SUFFIXES, find_pictures
from fastvae.data.packed import SPLITS
from fastvae.data.source import Source
from fastvae.errors import FastvaeError

ATTRIBUTES_FILE = "list_attr_celeba.txt"
SPLITS_FILE = "list_eval_partition.txt"
IMAGES_FOLDER = "img_align_celeba"


def is_celeba(root: Path) -> bool:
    """Whether the folder holds pictures named as CelebA's and the two lists lie in, beside or above it."""
    if _find_list(root, SPLITS_FILE) is None or _find_list(root, ATTRIBUTES_FILE) is None:
        return False
    folder = _images_folder(root)
    return any(re.fullmatch(r"\d{6}", file.stem) and file.suffix.lower() in SUFFIXES for file in folder.iterdir())


def read_celeba(root: Path, *, annotations: Path | None = None) -> Source:
    """Lists CelebA, or the part of it that is there.

    Args:
        root: `img_align_celeba`, the folder that holds it, or any folder with some of its pictures. Pictures
            that were cropped beforehand, or saved as PNG, are as welcome as the 178x218 JPEGs.
        annotations: folder with `list_attr_celeba.txt` and `list_eval_partition.txt`. By default they are
            looked for in `root` and the two folders above it, and in `Anno` and `Eval` there.

    Raises:
        FastvaeError: a list is missing or damaged, there are no pictures, or one is not in the lists.
    """
    if annotations is not None and not annotations.is_dir():
        raise FastvaeError(f"annotations must be a folder with {ATTRIBUTES_FILE}; {annotations} is none")
    lists = {}
    for name in (ATTRIBUTES_FILE, SPLITS_FILE):
        lists[name] = _find_list(root, name, annotations)
        if lists[name] is None:
            where = annotations if annotations is not None else f"{root} and the two folders above it"
            raise FastvaeError(
                f"{name} is not in {where}; put CelebA's {ATTRIBUTES_FILE} and {SPLITS_FILE} there, "
                "say where they are (annotations), or prepare it as a plain folder (kind folder)"
            )
    folder = _images_folder(root)
    names = find_pictures(folder)
    # By stem, so that CelebA's PNG edition finds itself in lists that say .jpg.
    stems = [Path(name).stem for name in names]
    wanted = set(stems)
    attribute_names, attributes = _read_attributes(lists[ATTRIBUTES_FILE], wanted)
    splits = _read_splits(lists[SPLITS_FILE], wanted)
    for table, file in ((attributes, lists[ATTRIBUTES_FILE]), (splits, lists[SPLITS_FILE])):
        unlisted = [name for name, stem in zip(names, stems, strict=True) if stem not in table]
        if unlisted:
            raise FastvaeError(
                f"{len(unlisted)} of {len(names)} pictures in {folder} are not in {file.name} "
                f"(first: {unlisted[0]}); "
                "remove them, or prepare it as a plain folder (kind folder)"
            )
    return Source(
        kind="celeba",
        root=folder,
        images=[folder / name for name in names],
        names=names,
        splits=np.array([splits[stem] for stem in stems], np.uint8),
        split_rule=SPLITS_FILE,
        attributes=np.stack([attributes[stem] for stem in stems]),
        attribute_names=attribute_names,
    )


def _images_folder(root: Path) -> Path:
    for candidate in (root / IMAGES_FOLDER, root / "Img" / IMAGES_FOLDER):
        if candidate.is_dir():
            # Some archives hold a second folder of the same name inside.
            return candidate / IMAGES_FOLDER if (candidate / IMAGES_FOLDER).is_dir() else candidate
    return root


def _find_list(root: Path, name: str, annotations: Path | None = None) -> Path | None:
    root = root.resolve()
    folders = (root, *root.parents[:2]) if annotations is None else (annotations,)
    for folder in folders:
        for candidate in (folder / name, folder / "Anno" / name, folder / "Eval" / name):
            if candidate.is_file():
                return candidate
    return None


def _read_attributes(file: Path, wanted: set[str]) -> tuple[tuple[str, ...], dict[str, np.ndarray]]:
    """The file: a count, a line of names, then `000001.jpg -1 1 ...` a line."""
    lines = file.read_text("utf-8", errors="replace").splitlines()
    if len(lines) < 3:
        raise FastvaeError(f"{file} is damaged: it has {len(lines)} lines; download it again")
    names = tuple(lines[1].split())
    table = {}
    for number, line in enumerate(lines[2:], start=3):
        stem = line.partition(".")[0]
        if stem in wanted:
            values = line.split()[1:]
            if len(values) != len(names) or not set(values) <= {"-1", "1", "0"}:
                raise FastvaeError(f"{file}, line {number}: expected a name and {len(names)} times 1 or -1")
            table[stem] = np.array([value == "1" for value in values], np.uint8)
    return names, table


def _read_splits(file: Path, wanted: set[str]) -> dict[str, int]:
    """The file: `000001.jpg 0` a line."""
    table = {}
    for number, line in enumerate(file.read_text("utf-8", errors="replace").splitlines(), start=1):
        stem = line.partition(".")[0]
        if stem in wanted:
            code = line.split()[-1]
            if code not in {str(value) for value in SPLITS.values()}:
                raise FastvaeError(f"{file}, line {number}: expected a name and 0, 1 or 2; got {line!r}")
            table[stem] = int(code)
    return table
