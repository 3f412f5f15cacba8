"""Lists the members of tar files and reads them by their offsets."""

import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from fastvae.data.containers.container import REPEATED, Container, clean_name, open_bounded
from fastvae.data.decoders.encoded import LARGEST_FILE, BrokenImage
from fastvae.data.sources.listing import Listing, why_no_picture
from fastvae.errors import FastvaeError
from fastvae.files.places import shown

_BLOCK = 512
_FIRST_BYTES = 18
_LINK = "links, or files with holes"
_AGAIN = "copy or download it again"
# Members of which tarfile keeps the headers before they are dropped.
_KEPT_HEADERS = 1024


@dataclass(frozen=True, slots=True)
class Member:
    """Where the bytes of a regular file lie in a tar file."""

    offset: int
    size: int


class TarPictures(Container):
    """The pictures in tar files that were listed before (`list_members`).

    Args:
        path: the tar file, or the folder of the shards.
        files: the tar files.
        names: of the pictures.
        members: for each picture the number of its file, and its place in it.
        left_out: see `Container`.
    """

    def __init__(
        self,
        path: Path,
        files: list[Path],
        names: list[str],
        members: list[tuple[int, Member]],
        left_out: dict[str, list[str]],
    ):
        super().__init__(path, files, names, left_out)
        self._members = members

    def _pictures(self) -> Iterator[bytes | BrokenImage]:
        opened, file = None, None
        try:
            for number, member in self._members:
                if number != opened:
                    if file is not None:
                        file.close()
                    opened, file = number, opened_tar(self.files[number])
                yield _read(file, member)
        finally:
            if file is not None:
                file.close()


def list_members(path: Path, left_out: Listing) -> dict[str, Member]:
    """The regular files in a tar file by name, in the order of the file; hidden ones and links are left out.

    Raises:
        FastvaeError: it cannot be read, is compressed, no tar file, damaged or truncated.
    """
    members: dict[str, Member] = {}
    with opened_tar(path) as file:
        size = os.fstat(file.fileno()).st_size
        for info in _headers(file, path, size):
            name = clean_name(info.name)
            if info.isdir() or not name:
                continue
            if info.isreg() and not info.issparse():
                member = Member(info.offset_data, info.size)
                if member.offset + member.size > size:
                    raise FastvaeError(f"{shown(path)} is truncated: it ends within {shown(name)}; {_AGAIN}")
            # A hard link is how tar stores a file that it has stored under another name.
            elif not (info.islnk() and (member := members.get(clean_name(info.linkname)))):
                left_out.leave_out(name, _LINK)
                continue
            if name in members:
                left_out.leave_out(name, REPEATED)
            members[name] = member
    return members


def pictures_among(path: Path, members: dict[str, Member], left_out: Listing) -> list[str]:
    """The names of the members that are pictures, decided as in a folder."""
    names = []
    with opened_tar(path) as file:
        for name, member in members.items():
            reason = why_no_picture(name, lambda member=member: _bytes_of(file, member, _FIRST_BYTES))
            if reason is None:
                names.append(name)
            else:
                left_out.leave_out(name, reason)
    return names


def read_member(file: BinaryIO, member: Member, limit: int) -> bytes | None:
    """The bytes of a member; None if it has more than `limit`."""
    return _bytes_of(file, member, member.size) if member.size <= limit else None


def opened_tar(path: Path) -> BinaryIO:
    """Opens a tar file for reading by offsets.

    Raises:
        FastvaeError: it cannot be read.
    """
    try:
        return open_bounded(path)
    except OSError as error:
        raise FastvaeError(f"{shown(path)} cannot be read ({error.strerror or shown(str(error))})") from error


def _headers(file: BinaryIO, path: Path, size: int) -> Iterator[tarfile.TarInfo]:
    try:
        with tarfile.open(fileobj=file, mode="r:") as archive:
            while (info := archive.next()) is not None:
                yield info
                if len(archive.members) > _KEPT_HEADERS:
                    archive.members.clear()
            end = archive.offset
    # tarfile raises various errors for damaged headers.
    except Exception as error:
        reason = shown(" ".join(str(error).split()))
        raise FastvaeError(f"{shown(path)} is damaged, truncated, or not a tar file ({reason}); {_AGAIN}") from None
    # tarfile takes a damaged header for the end.
    file.seek(end)
    block = file.read(_BLOCK)
    if end > size or (block and block != bytes(_BLOCK)):
        raise FastvaeError(f"{shown(path)} is damaged or truncated at byte {end:,}; {_AGAIN}")


def _read(file: BinaryIO, member: Member) -> bytes | BrokenImage:
    if member.size > LARGEST_FILE:
        return BrokenImage(f"the file is larger than {LARGEST_FILE >> 20} MiB")
    try:
        data = _bytes_of(file, member, member.size)
    except OSError as error:
        return BrokenImage(shown(error.strerror or str(error)))
    return data if len(data) == member.size else BrokenImage("the tar file ends within it")


def _bytes_of(file: BinaryIO, member: Member, count: int) -> bytes:
    file.seek(member.offset)
    return file.read(min(count, member.size))
