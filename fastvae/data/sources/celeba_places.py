"""Finds CelebA's pictures and lists in the forms in which the authors, Kaggle and other tools distribute them."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from fastvae.data.containers.archives import is_zip
from fastvae.data.containers.zip_file import ZipPictures
from fastvae.data.sources.celeba_lists import ATTRIBUTES_LIST, SPLITS_LIST, ListFile
from fastvae.data.sources.listing import NOT_PICTURES, SUFFIXES
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


def is_one_of_its_lists(name: str) -> bool:
    """Whether a file has the name of any list that belongs to CelebA."""
    return _LISTS.fullmatch(os.path.basename(name)) is not None  # noqa: PTH119


@dataclass(frozen=True)
class Places:
    """Where CelebA's files are.

    Attributes:
        root: what was given.
        pictures: the folder or zip file with the pictures; `root` itself if none was found.
        container: the contents of the zip file; None for a folder.
        unused: other folders and zip files with pictures.
        lists: the lists of attributes and of splits that were found, by name without suffix.
        annotations: the folder with the lists, if it was given.
    """

    root: Path
    pictures: Path
    container: ZipPictures | None
    unused: list[Path]
    lists: dict[str, ListFile]
    annotations: Path | None = None

    @property
    def are_complete(self) -> bool:
        """Whether both lists and pictures with CelebA's names were found."""
        names = (
            self.container.names if self.container is not None else (entry.name for entry in _entries(self.pictures))
        )
        return len(self.lists) == 2 and any(map(has_its_name, names))

    @property
    def other_lists(self) -> list[str]:
        """Names of other lists of CelebA beside the two."""
        inside = {file.name for file in _lists_inside(self.container)}
        folders = {file.path.parent for file in self.lists.values() if file.member is None}
        names = inside | {entry.name for folder in folders for entry in _entries(folder)}
        known = (ATTRIBUTES_LIST, SPLITS_LIST)
        return sorted(name for name in names if is_one_of_its_lists(name) and not name.startswith(known))


def find_places(root: Path, annotations: Path | None = None) -> Places:
    """Finds pictures and lists.

    The pictures are in `root`, one of its subfolders, or `Img` in these.

    The lists are in `annotations` if given. Else, in the zip file with the pictures; or in `root`, the folder with the
    pictures or the three folders above each (as given, and with links followed), or `Anno` or `Eval` in one of these.

    Raises:
        FastvaeError: the zip file with the pictures is damaged or encrypted.
    """
    pictures, unused = _find_pictures(root)
    # A damaged zip file is an error here: later it would be one of many files that are no pictures. Not by
    # `zipfile.is_zipfile`, which also takes a tar file for one if a zip file is stored at its end.
    container = ZipPictures(pictures) if is_file(pictures) and is_zip(pictures) else None
    if annotations is not None:
        folders, inside = [annotations], []
    else:
        starts = [Path(start) for path in (root, pictures) for start in (resolved(path), os.path.realpath(path))]
        folders = [folder for start in starts for folder in (start, *start.parents[:_FOLDERS_ABOVE])]
        inside = _lists_inside(container)
    lists = {}
    for name in (ATTRIBUTES_LIST, SPLITS_LIST):
        files = [f"{name}{ending}" for ending in _ENDINGS]
        members = [file for file in inside if file.name in files]
        places = (
            folder / inner / file for folder in dict.fromkeys(folders) for inner in _INNER_FOLDERS for file in files
        )
        if members:
            lists[name] = members[0]
        elif (path := next(filter(is_file, places), None)) is not None:
            lists[name] = ListFile(path)
    return Places(root, pictures, container, unused, lists, annotations)


def _find_pictures(root: Path) -> tuple[Path, list[Path]]:
    """The folder or zip file with the pictures, and others."""
    if is_file(root):
        return root, []
    subfolders = _subfolders(root)
    found = []
    for name in _PICTURES:
        for outer in (root, *subfolders):
            for candidate in (outer / name, outer / "Img" / name):
                # Kaggle's archive contains a second folder with the same name.
                candidate = candidate / name if is_folder(candidate / name) else candidate
                if is_file(candidate) if name.endswith(".zip") else _has_its_pictures(candidate):
                    found.append(candidate)
    if found:
        first, *others = dict.fromkeys(found)
        return first, others
    if not _has_its_pictures(root):
        others = [folder for folder in subfolders if _has_its_pictures(folder)]
        if len(others) == 1:
            return others[0], []
    return root, []


def _lists_inside(container: ZipPictures | None) -> list[ListFile]:
    others = container.left_out.get(NOT_PICTURES, []) if container is not None else []
    return [ListFile(container.path, name) for name in others if is_one_of_its_lists(name)]


def _has_its_pictures(folder: Path) -> bool:
    return any(has_its_name(entry.name) for entry in _entries(folder))


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
