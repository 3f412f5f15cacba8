"""Which files of a folder are pictures, at any depth, and which are left out and why."""

import os
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

from fastvae.errors import FastvaeError
from fastvae.files.places import shown
from fastvae.files.reading import open_regular

JPEG_SUFFIXES = frozenset({".jpg", ".jpeg", ".jpe", ".jfif"})
SUFFIXES = JPEG_SUFFIXES | {".png", ".webp", ".bmp"}
# Decoders of these are slow, rarely used, or have had many faults; and animations and raw files are not photographs.
_OTHER_FORMATS = frozenset(
    {
        *(".gif", ".tif", ".tiff", ".heic", ".heif", ".avif", ".jxl", ".jp2", ".ppm", ".pgm", ".pbm", ".pnm"),
        *(".tga", ".psd", ".svg", ".dng", ".cr2", ".nef", ".arw"),
    }
)
_NAMED = 3

HIDDEN = "hidden"
NOT_PICTURES = "not pictures"
_UNREAD_FORMAT = "in formats that are not read (save them as PNG or JPEG)"
_BROKEN_LINK = "links that lead nowhere"
_READ_BEFORE = "links to folders that are read already"
_ABOVE = "links to a folder above"
_NOT_A_FILE = "pipes, sockets or devices"
_CANNOT_BE_OPENED = "that may not be looked into"


@dataclass(frozen=True)
class Listing:
    """What a folder holds.

    Attributes:
        names: paths of the pictures, relative to the folder, with slashes, sorted.
        left_out: paths of what is not read, by reason.
    """

    names: list[str] = field(default_factory=list)
    left_out: dict[str, list[str]] = field(default_factory=dict)

    def leave_out(self, name: str, reason: str) -> None:
        """Adds a path to those that are not read."""
        self.left_out.setdefault(reason, []).append(name)


def list_pictures(root: Path) -> Listing:
    """Lists all pictures below `root`.

    Pictures are told by their names' endings (`SUFFIXES`, in any case), and those without an ending by their first
    bytes. Linked files and folders are as good as others, but each folder is read once: where it lies if that is below
    `root`, else at the first link. What is hidden is left out (macOS writes a `._x.jpg` beside each `x.jpg`).

    Raises:
        FastvaeError: there are none, or the folder cannot be read.
    """
    listing = Listing()
    seen = set()
    there, linked = [""], deque()
    while there or linked:
        # Links come last, so that what lies in the tree is called by where it lies.
        follows_link = not there
        folder = linked.popleft() if follows_link else there.pop()
        path = root / folder
        try:
            if follows_link and _leads_above(path, root):
                listing.leave_out(folder, _ABOVE)
                continue
            if (identity := _identity(path)) in seen:
                listing.leave_out(folder, _READ_BEFORE)
                continue
            seen.add(identity)
            with os.scandir(path) as entries:
                ordered = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            if not folder:
                raise FastvaeError(f"{shown(root)} cannot be read ({error.strerror})") from error
            listing.leave_out(folder, _CANNOT_BE_OPENED)
            continue
        subfolders = []
        for entry in ordered:
            name = f"{folder}/{entry.name}" if folder else entry.name
            if (kind := _kind(entry)) is None:
                listing.names.append(name)
            elif kind == "folder":
                (linked if entry.is_symlink() else subfolders).append(name)
            else:
                listing.leave_out(name, kind)
        there += reversed(subfolders)
    if not listing.names:
        empty = "holds no pictures" if listing.left_out else "is empty: it holds no pictures"
        left_out = f"; {describe(listing.left_out)}" if listing.left_out else ""
        raise FastvaeError(f"{shown(root)} {empty} ({' '.join(sorted(SUFFIXES))}); check the path{left_out}")
    listing.names.sort()
    return listing


def describe(left_out: dict[str, list[str]]) -> str:
    """What is not read, counted by reason, the first few of each named; one line."""
    parts = []
    for reason, names in sorted(left_out.items()):
        more = ", ..." if len(names) > _NAMED else ""
        parts.append(f"{len(names)} {reason} ({', '.join(map(shown, names[:_NAMED]))}{more})")
    return f"left out: {', '.join(parts)}"


def is_jpeg(path: Path) -> bool:
    """Whether a file that is listed as a picture says that it is a JPEG, by its ending or, without one, its bytes."""
    return path.suffix.lower() in JPEG_SUFFIXES or (_has_no_ending(path.name) and _first_bytes(path)[:3] == _JPEG)


def _kind(entry: os.DirEntry) -> str | None:
    """None for a picture, "folder", or why it is left out."""
    if entry.name.startswith((".", "__MACOSX")):
        return HIDDEN
    try:
        if entry.is_dir():
            return "folder"
        if not entry.is_file():
            return _BROKEN_LINK if entry.is_symlink() else _NOT_A_FILE
    except OSError:  # links in a circle
        return _BROKEN_LINK
    ending = os.path.splitext(entry.name)[1].lower()  # noqa: PTH122
    if ending in SUFFIXES:
        return None
    if _has_no_ending(entry.name):
        return None if _begins_as_picture(_first_bytes(entry.path)) else NOT_PICTURES
    return _UNREAD_FORMAT if ending in _OTHER_FORMATS else NOT_PICTURES


def _has_no_ending(name: str) -> bool:
    ending = os.path.splitext(name)[1][1:]  # noqa: PTH122
    return not ending or ending.isdigit()


_JPEG = b"\xff\xd8\xff"


def _begins_as_picture(start: bytes) -> bool:
    if start.startswith((_JPEG, b"\x89PNG\r\n\x1a\n")):
        return True
    if start[:4] == b"RIFF":
        return start[8:12] == b"WEBP"
    # "BM" alone would take many a text for a picture: reserved zeros, and the size of one of the headers.
    header = int.from_bytes(start[14:18], "little")
    return start[:2] == b"BM" and start[6:10] == bytes(4) and header in (12, 40, 52, 56, 64, 108, 124)


def _first_bytes(path: str | Path) -> bytes:
    try:
        with open_regular(Path(path)) as file:
            return file.read(18)
    except OSError:
        return b""


def _identity(path: Path) -> tuple[int, int] | str:
    status = path.stat()
    # Some network file systems number nothing.
    return (status.st_dev, status.st_ino) if status.st_ino else os.path.realpath(path)


def _leads_above(link: Path, root: Path) -> bool:
    """Whether a link leads to a folder that it lies in itself, or to one that holds the whole data set."""
    target = os.path.realpath(link)
    return any(Path(os.path.realpath(start)).is_relative_to(target) for start in (link.parent, root))
