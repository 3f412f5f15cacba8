"""Opens a zip or tar file of pictures."""

from pathlib import Path

from fastvae.data.containers.container import Container
from fastvae.data.containers.tar_file import TarPictures, list_members, pictures_among
from fastvae.data.containers.zip_file import ZipPictures
from fastvae.data.packed_header import MAGIC
from fastvae.data.sources.listing import SUFFIXES, Listing, describe
from fastvae.errors import FastvaeError
from fastvae.files.places import shown
from fastvae.files.reading import open_regular

_SUFFIXES = {".zip": "zip", ".tar": "tar", ".parquet": "parquet"}
_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "Zstandard"}
_OTHER_ARCHIVES = {b"7z\xbc\xaf\x27\x1c": "a 7z archive", b"Rar!\x1a\x07": "a RAR archive"}
_TAR_MAGIC_AT = 257


def container_kind(path: Path) -> str | None:
    """ "zip", "tar" or "parquet" by a file's first bytes, else by its suffix; None for other files.

    Suffixes matter where the bytes say nothing: programs can stand before a zip file, and old tar files have no mark.

    Raises:
        FastvaeError: it is compressed as a whole, or another kind of archive.
    """
    start = _start(path)
    for magic, what in _COMPRESSED.items():
        if start.startswith(magic):
            raise FastvaeError(
                f"{shown(path)} is compressed ({what}), and pictures in it can only be reached from its start; unpack "
                "it and give the folder, or uncompress it to a .tar"
            )
    for magic, what in _OTHER_ARCHIVES.items():
        if start.startswith(magic):
            raise FastvaeError(f"{shown(path)} is {what}, which is not read; unpack it and give the folder")
    return _kind(path, start)


def is_zip(path: Path) -> bool:
    """Whether a file is read as a zip file; also if it turns out to be damaged."""
    return _kind(path, _start(path)) == "zip"


def _start(path: Path) -> bytes:
    try:
        with open_regular(path) as file:
            return file.read(512)
    except OSError:
        return b""


def _kind(path: Path, start: bytes) -> str | None:
    if start.startswith(MAGIC):
        return None  # a file of `fastvae prepare`, whatever it is called
    if start.startswith(b"PAR1"):
        return "parquet"
    if start.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return "zip"
    return "tar" if start[_TAR_MAGIC_AT:].startswith(b"ustar") else _SUFFIXES.get(path.suffix.lower())


def open_archive(path: Path) -> Container:
    """The pictures in a zip or tar file, sorted by name.

    Raises:
        FastvaeError: it cannot be read, is damaged or encrypted, another kind of file, or contains no pictures.
    """
    kind = container_kind(path)
    if kind == "zip":
        pictures: Container = ZipPictures(path)
    elif kind == "tar":
        listing = Listing()
        members = list_members(path, listing)
        names = sorted(pictures_among(path, members, listing))
        pictures = TarPictures(path, [path], names, [(0, members[name]) for name in names], listing.left_out)
    else:
        raise FastvaeError(f"{shown(path)} is neither a zip nor a tar file")
    check_not_empty(pictures)
    return pictures


def check_not_empty(pictures: Container) -> None:
    """Raises FastvaeError if there are no pictures."""
    if not pictures.names:
        left_out = f"; {describe(pictures.left_out)}" if pictures.left_out else ""
        raise FastvaeError(f"{shown(pictures.path)} contains no pictures ({' '.join(sorted(SUFFIXES))}){left_out}")
