"""Reads pictures out of a zip file."""

import contextlib
import copy
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

try:
    from lzma import LZMAError
except ImportError:  # a Python built without it, whose zipfile says that it cannot read such members
    LZMAError = zipfile.BadZipFile

from fastvae.data.containers.container import REPEATED, Container, clean_name, open_bounded
from fastvae.data.decoders.encoded import LARGEST_FILE, BrokenImage
from fastvae.data.sources.listing import Listing, why_no_picture
from fastvae.errors import FastvaeError
from fastvae.files.places import shown

_ENCRYPTED = 0x1
_FIRST_BYTES = 18
_MADE_BY_DOS = 0
# What zipfile and the libraries below it raise for members that are damaged or have an unknown method.
BROKEN = (zipfile.BadZipFile, zlib.error, LZMAError, EOFError, NotImplementedError, RuntimeError, ValueError, OSError)


class ZipPictures(Container):
    """The pictures in a zip file, sorted by name. Which members are pictures is decided as in a folder.

    Raises:
        FastvaeError: the file cannot be read, is no zip file, truncated or encrypted.
    """

    def __init__(self, path: Path):
        super().__init__(path, [path], [], {})
        listing = Listing()
        members: dict[str, int] = {}
        with _opened(path) as archive:
            for number, info in enumerate(archive.infolist()):
                # Some programs on Windows write backslashes.
                raw = info.filename.replace("\\", "/") if info.create_system == _MADE_BY_DOS else info.filename
                if raw.endswith("/") or not (name := clean_name(raw)):
                    continue
                reason = why_no_picture(name, lambda info=info: _first_bytes(archive, info))
                if reason is not None:
                    listing.leave_out(name, reason)
                    continue
                if info.flag_bits & _ENCRYPTED:
                    raise FastvaeError(
                        f"{shown(path)} is encrypted ({shown(name)}); unpack it with its password, and give the folder"
                    )
                if name in members:
                    listing.leave_out(name, REPEATED)
                members[name] = number
        self.names = sorted(members)
        self._members = [members[name] for name in self.names]
        self.left_out = listing.left_out

    def only(self, names: list[str]) -> "ZipPictures":
        """Some of the pictures, in the same order."""
        kept = set(names)
        some = copy.copy(self)
        some._members = [number for name, number in zip(self.names, self._members, strict=True) if name in kept]
        some.names = [name for name in self.names if name in kept]
        return some

    def _pictures(self) -> Iterator[bytes | BrokenImage]:
        with _opened(self.path) as archive:
            infos = archive.infolist()
            for number in self._members:
                yield _read(archive, infos[number])


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(open_bounded(path))
            archive = stack.enter_context(zipfile.ZipFile(file))
        except OSError as error:
            raise FastvaeError(f"{shown(path)} cannot be read ({error.strerror or shown(str(error))})") from error
        # zipfile raises various errors for a damaged list: UnicodeDecodeError, struct.error and more.
        except Exception as error:
            reason = shown(" ".join(str(error).split()))
            raise FastvaeError(
                f"{shown(path)} is damaged, truncated, or not a zip file ({reason}); copy or download it again"
            ) from None
        yield archive


def _read(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes | BrokenImage:
    if info.file_size > LARGEST_FILE:
        return BrokenImage(f"{info.file_size:,} bytes when unpacked; the limit is {LARGEST_FILE:,}")
    try:
        # Never more than the size that was just checked, whatever the compressed bytes would give.
        with archive.open(info) as member:
            return member.read()
    except BROKEN as error:
        # An OSError's number and "Invalid argument", of a place that is not in the file, say nothing to a person.
        reason = getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
        return BrokenImage(f"damaged in the zip file ({shown(reason)})")


def _first_bytes(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    try:
        with archive.open(info) as member:
            return member.read(_FIRST_BYTES)
    except BROKEN:
        return b""
