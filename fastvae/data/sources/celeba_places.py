"""Finds CelebA's pictures and lists in the forms in which the authors, Kaggle and other tools distribute them."""

import os
import re
from pathlib import Path

from fastvae.data.sources.celeba_lists import ATTRIBUTES_LIST, SPLITS_LIST, ListFile, lists_inside
from fastvae.data.sources.listing import SUFFIXES
from fastvae.files.places import is_file, is_folder, resolved

# The aligned pictures of 178x218 come first: they are what the paper uses.
_PICTURES = (
    *("img_align_celeba", "img_align_celeba_png", "img_align_celeba.zip", "img_align_celeba_png.zip"),
    *("img_celeba", "img_celeba.zip"),
)
_INNER_FOLDERS = ("", "Anno", "Eval")
_FOLDERS_ABOVE = 3
# More subfolders than this are classes or albums.
_MOST_SUBFOLDERS = 100
_ENDINGS = (".txt", ".csv")
_NAME = re.compile(r"\d{6}")
_LISTS = re.compile(
    r"(list_(attr|bbox|landmarks(_align)?)_celeba|list_eval_partition|identity_celeba)\.(txt|csv)", re.I
)


def has_its_name(name: str) -> bool:
    """Whether a file is named as CelebA's pictures are, as in 000001.jpg."""
    stem, ending = os.path.splitext(os.path.basename(name))  # noqa: PTH119, PTH122
    return ending.lower() in SUFFIXES and _NAME.fullmatch(stem) is not None


def has_its_pictures(folder: Path) -> bool:
    """Whether a picture with such a name is directly in the folder."""
    return any(has_its_name(entry.name) for entry in _entries(folder))


def is_one_of_its_lists(name: str) -> bool:
    """Whether a file has the name of any list that belongs to CelebA."""
    return _LISTS.fullmatch(os.path.basename(name)) is not None  # noqa: PTH119


def find_pictures(root: Path) -> tuple[Path, list[Path]]:
    """The folder or zip file with the pictures, and others like it that are not used.

    Looks in `root`, its subfolders, and `Img` in these. It is `root` itself if nothing is found.
    """
    if is_file(root):
        return root, []
    subfolders = _subfolders(root)
    found = []
    for name in _PICTURES:
        for outer in (root, *subfolders):
            for candidate in (outer / name, outer / "Img" / name):
                # Kaggle's archive contains a second folder with the same name.
                candidate = candidate / name if is_folder(candidate / name) else candidate
                if is_file(candidate) if name.endswith(".zip") else has_its_pictures(candidate):
                    found.append(candidate)
    if found:
        first, *others = dict.fromkeys(found)
        return first, others
    if not has_its_pictures(root):
        others = [folder for folder in subfolders if has_its_pictures(folder)]
        if len(others) == 1:
            return others[0], []
    return root, []


def find_lists(root: Path, pictures: Path, annotations: Path | None = None) -> dict[str, ListFile]:
    """The lists of attributes and of splits that are found, by name without suffix.

    Searches `annotations` if given. Else, the zip file with the pictures; then `root`, the folder with the pictures and
    the three folders above each (as given, and with links followed), and `Anno` and `Eval` in all of these.
    """
    if annotations is not None:
        folders = [annotations]
    else:
        starts = [Path(start) for path in (root, pictures) for start in (resolved(path), os.path.realpath(path))]
        folders = [folder for start in starts for folder in (start, *start.parents[:_FOLDERS_ABOVE])]
    inside = lists_inside(pictures) if annotations is None and is_file(pictures) else []
    found = {}
    for name in (ATTRIBUTES_LIST, SPLITS_LIST):
        files = [f"{name}{ending}" for ending in _ENDINGS]
        members = [file for file in inside if file.name in files]
        places = (
            folder / inner / file for folder in dict.fromkeys(folders) for inner in _INNER_FOLDERS for file in files
        )
        if members:
            found[name] = members[0]
        elif (path := next(filter(is_file, places), None)) is not None:
            found[name] = ListFile(path)
    return found


def other_lists(found: dict[str, ListFile]) -> list[str]:
    """Names of other lists of CelebA beside the two."""
    names = set()
    for file in found.values():
        if file.member is not None:
            names |= {other.name for other in lists_inside(file.path)}
        else:
            names |= {entry.name for entry in _entries(file.path.parent) if is_one_of_its_lists(entry.name)}
    return sorted(name for name in names if not name.startswith((ATTRIBUTES_LIST, SPLITS_LIST)))


def _subfolders(root: Path) -> list[Path]:
    names = sorted(entry.name for entry in _entries(root) if _is_folder(entry) and not entry.name.startswith("."))
    return [root / name for name in names[:_MOST_SUBFOLDERS]]


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a cycle of links
        return False


def _entries(folder: Path):
    try:
        with os.scandir(folder) as entries:
            yield from entries
    except OSError:
        return
