"""The files of CIFAR-10 and CIFAR-100, in a folder or in the archive that they are downloaded as."""

import gzip
import io
import tarfile
import zlib
from collections.abc import Collection
from pathlib import Path
from typing import BinaryIO

from fastvae.errors import FastvaeError
from fastvae.files.places import is_file, shown
from fastvae.files.reading import Malformed, open_regular

# The largest file has 155 MB, all of them together 186 MB.
_LARGEST_FILE = 256 << 20
_LARGEST_ARCHIVE = 512 << 20
_MOST_MEMBERS = 10_000
_ENDINGS = (".tar.gz", ".tgz", ".tar")
_GZIP = b"\x1f\x8b"
# What lies before the first batch in an archive: the package.json of an npm package, a licence.
_SMALL_MEMBER = 1 << 20
_DAMAGE = (tarfile.TarError, OSError, EOFError, zlib.error, ValueError, OverflowError)


class CifarFiles:
    """Files by their names.

    Args:
        root: a folder, or a .tar.gz or .tar, in which the files may lie in any folder.
        names: those to read; others are ignored.

    Attributes:
        root: as given.
        names: those of `names` that are there.

    Raises:
        FastvaeError: the archive is damaged, or larger than CIFAR's.
    """

    def __init__(self, root: Path, names: Collection[str]):
        self.root = root
        self._contents = _unpacked(root, names) if is_file(root) else None
        self.names = {
            name for name in names if (is_file(root / name) if self._contents is None else name in self._contents)
        }

    def read(self, name: str) -> bytes:
        """The contents of a file that is there; to be called once, as those of an archive are released.

        Raises:
            FastvaeError: it cannot be read, or is larger than CIFAR's.
        """
        if self._contents is not None:
            return self._contents.pop(name)
        try:
            with open_regular(self.root / name) as file:
                if file.seek(0, 2) > _LARGEST_FILE:
                    raise FastvaeError(f"{self.shown(name)} is larger than CIFAR's files; unpack the archive again")
                file.seek(0)
                return file.read()
        except OSError as error:
            raise FastvaeError(f"{self.shown(name)} cannot be read ({error.strerror or shown(str(error))})") from error

    def shown(self, name: str) -> str:
        """The path of a file, for messages."""
        return shown(self.root / name)


def is_archive(path: Path) -> bool:
    """Whether the name of a file is that of a .tar.gz or .tar."""
    return is_file(path) and path.name.lower().endswith(_ENDINGS)


def archive_begins_with(path: Path, names: Collection[str]) -> bool:
    """Whether the first large file in an archive, or a small one before it, has one of the names.

    The names alone would take 186 MB to decompress.
    """
    try:
        with open_regular(path) as file, tarfile.open(fileobj=_decompressed(file), mode="r|") as tar:
            for member in tar:
                if member.isfile() and _base(member) in names:
                    return True
                if member.size > _SMALL_MEMBER or tar.offset > 16 * _SMALL_MEMBER:
                    return False
    except (*_DAMAGE, Malformed):
        pass
    return False


def _unpacked(path: Path, names: Collection[str]) -> dict[str, bytes]:
    contents = {}
    try:
        with open_regular(path) as file, _decompressed(file) as data, tarfile.open(fileobj=data, mode="r|") as tar:
            for count, member in enumerate(tar, start=1):
                if count > _MOST_MEMBERS:
                    raise Malformed(f"it has more than {_MOST_MEMBERS} files")
                if member.isfile() and _base(member) in names:
                    if member.size > _LARGEST_FILE:
                        raise Malformed(f"{_base(member)} is larger than CIFAR's files")
                    contents[_base(member)] = tar.extractfile(member).read()
            # To tarfile a damaged header is the end; gzip's checksum comes last.
            while data.read(_SMALL_MEMBER):
                pass
    except _DAMAGE as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise FastvaeError(f"{shown(path)} cannot be read ({shown(reason)}); download it again") from None
    return contents


def _decompressed(file: BinaryIO) -> io.BufferedReader:
    is_compressed = file.read(2) == _GZIP
    file.seek(0)
    return io.BufferedReader(_Limited(gzip.GzipFile(fileobj=file) if is_compressed else file))


def _base(member: tarfile.TarInfo) -> str:
    return member.name.rpartition("/")[2]


class _Limited(io.RawIOBase):
    """Stops a small file that decompresses to terabytes."""

    def __init__(self, data: BinaryIO):
        self._data = data
        self._left = _LARGEST_ARCHIVE

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:
        count = self._data.readinto(buffer)
        self._left -= count
        if self._left < 0:
            raise Malformed(f"it decompresses to more than {_LARGEST_ARCHIVE >> 20} MiB, and CIFAR has 186 MB")
        return count
