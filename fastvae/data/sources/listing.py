"""Lists the picture files in a folder, at any depth, and the skipped files with reasons."""

import os
import re
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fastvae.errors import FastvaeError
from fastvae.files.places import shown
from fastvae.files.reading import open_regular

JPEG_SUFFIXES = frozenset({".jpg", ".jpeg", ".jpe", ".jfif"})
SUFFIXES = JPEG_SUFFIXES | {".png", ".webp", ".bmp"}
# Their decoders are slow, rarely used, or had many vulnerabilities; animations and raw files are not photographs.
_OTHER_FORMATS = frozenset(
    {
        *(".gif", ".tif", ".tiff", ".heic", ".heif", ".avif", ".jxl", ".jp2", ".ppm", ".pgm", ".pbm", ".pnm"),
        *(".tga", ".psd", ".svg", ".dng", ".cr2", ".nef", ".arw"),
    }
)
# Large files come in parts, such as .7z.001.
_ARCHIVE_ENDING = re.compile(r"\.(7z|zip|rar|tgz|tar(?:\.gz|\.bz2|\.xz|\.zst)?)(\.\d{3})?$")
_NAMED = 3

HIDDEN = "hidden"
NOT_PICTURES = "not pictures"
_UNREAD_FORMAT = "in formats that are not read (save them as PNG or JPEG)"
_ARCHIVES = "archives (unpack them; a .zip or .tar can also be given by its own path)"
_PARQUET = "Parquet files (give them or their folder by its own path)"
_SEVEN_ZIP = "7z archives, which are not read (unpack them, as by `7z x img_align_celeba_png.7z.001`)"
_BROKEN_LINK = "broken links"
_READ_BEFORE = "links to folders that were read already"
_ABOVE = "links to a folder above"
_NOT_A_FILE = "pipes, sockets or devices"
_CANNOT_BE_OPENED = "folders without read permission"


@dataclass(frozen=True)
class Listing:
    """The contents of a folder.

    Attributes:
        names: paths of the pictures, relative to the folder, with slashes, sorted.
        left_out: paths of skipped files and folders, by reason.
    """

    names: list[str] = field(default_factory=list)
    left_out: dict[str, list[str]] = field(default_factory=dict)

    def leave_out(self, name: str, reason: str) -> None:
        """Adds a skipped path."""
        self.left_out.setdefault(reason, []).append(name)


def list_pictures(root: Path) -> Listing:
    """Lists all pictures below `root`.

    Pictures are recognised by suffix (`SUFFIXES`, case-insensitive), or by their first bytes if they have none. Links
    to files and folders are followed, but each folder is read once: at its own path if that is below `root`, else at
    the first link. Hidden files are skipped (macOS writes a `._x.jpg` beside each `x.jpg`).

    Raises:
        FastvaeError: there are no pictures, or the folder cannot be read.
    """
    listing = Listing()
    seen = set()
    there, linked = [""], deque()
    while there or linked:
        # Links come last, so that folders in the tree are listed at their own paths.
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
        empty = "contains no pictures" if listing.left_out else "is empty: it contains no pictures"
        left_out = f"; {describe(listing.left_out)}" if listing.left_out else ""
        raise FastvaeError(f"{shown(root)} {empty} ({' '.join(sorted(SUFFIXES))}); check the path{left_out}")
    listing.names.sort()
    return listing


def describe(left_out: dict[str, list[str]]) -> str:
    """One line with the skipped files, counted by reason, and the first names."""
    parts = []
    for reason, names in sorted(left_out.items()):
        parts.append(f"{len(names):,} {reason} ({named(names, len(names))})")
    return f"left out: {', '.join(parts)}"


def named(names: Sequence[str], count: int) -> str:
    """The first three of `count` names, for a message."""
    return ", ".join([*map(shown, names[:_NAMED]), *(["..."] if count > _NAMED else [])])


def is_jpeg(path: Path) -> bool:
    """Whether a listed picture is a JPEG by its suffix or, if it has none, its first bytes."""
    return path.suffix.lower() in JPEG_SUFFIXES or (_has_no_suffix(path.name) and _first_bytes(path)[:3] == _JPEG)


def why_no_picture(name: str, first_bytes: Callable[[], bytes]) -> str | None:
    """None for a picture inside a container, or the reason to skip it: the same rules as for files.

    Args:
        name: with slashes.
        first_bytes: reads its first 18 bytes; called if the name does not say what it is.
    """
    if any(_is_hidden(part) for part in name.split("/")):
        return HIDDEN
    return _why_no_picture(name, first_bytes)


def _kind(entry: os.DirEntry) -> str | None:
    """None for a picture, "folder", or the reason to skip it."""
    if _is_hidden(entry.name):
        return HIDDEN
    try:
        if entry.is_dir():
            return "folder"
        if not entry.is_file():
            return _BROKEN_LINK if entry.is_symlink() else _NOT_A_FILE
    except OSError:  # a cycle of links
        return _BROKEN_LINK
    return _why_no_picture(entry.name, lambda: _first_bytes(entry.path))


def _why_no_picture(name: str, first_bytes: Callable[[], bytes]) -> str | None:
    suffix = os.path.splitext(name)[1].lower()  # noqa: PTH122
    if suffix in SUFFIXES:
        return None
    if archive := _ARCHIVE_ENDING.search(name.lower()):
        return _SEVEN_ZIP if archive[1] == "7z" else _ARCHIVES
    if suffix == ".parquet":
        return _PARQUET
    if _has_no_suffix(name):
        return None if _begins_as_picture(first_bytes()) else NOT_PICTURES
    return _UNREAD_FORMAT if suffix in _OTHER_FORMATS else NOT_PICTURES


def _is_hidden(name: str) -> bool:
    return name.startswith((".", "__MACOSX"))


def _has_no_suffix(name: str) -> bool:
    suffix = os.path.splitext(name)[1][1:]  # noqa: PTH122
    return not suffix or suffix.isdigit()


_JPEG = b"\xff\xd8\xff"


def _begins_as_picture(start: bytes) -> bool:
    if start.startswith((_JPEG, b"\x89PNG\r\n\x1a\n")):
        return True
    if start[:4] == b"RIFF":
        return start[8:12] == b"WEBP"
    # "BM" alone would match many texts: also check the reserved zeros and the header's size.
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
    # Some network file systems have no inode numbers.
    return (status.st_dev, status.st_ino) if status.st_ino else os.path.realpath(path)


def _leads_above(link: Path, root: Path) -> bool:
    """Whether a link points to a folder that contains the link or the complete data set."""
    target = os.path.realpath(link)
    return any(Path(os.path.realpath(start)).is_relative_to(target) for start in (link.parent, root))
