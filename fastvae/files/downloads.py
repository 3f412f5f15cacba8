"""Downloading public files and checking them."""

import hashlib
import http.client
import logging
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from fastvae.errors import FastvaeError
from fastvae.files.cache import cache_folder
from fastvae.files.reading import open_regular
from fastvae.progress_bar import progress_bar

# Applies between two blocks of data, too. Short, so that a machine without a network reports it at once.
_TIMEOUT_S = 10
_BLOCK_BYTES = 1 << 20
_logger = logging.getLogger("fastvae")


class _DownloadError(Exception):
    """A failure of the network or the server."""


@dataclass(frozen=True)
class PublicFile:
    """A file on a public server, and its checksum.

    Attributes:
        what: name for messages, "the Inception network".
        url: http or https.
        sha256: of the file, 64 hexadecimal digits, or the first ones if only those are published.
        alternatives: what users without a network can do instead, each as an imperative.
    """

    what: str
    url: str
    sha256: str
    alternatives: tuple[str, ...]

    @property
    def name(self) -> str:
        """The last part of the URL; the file has this name in the cache folder."""
        return self.url.rpartition("/")[2]

    def download(self, target: Path, *, show: bool | None = None) -> None:
        """Downloads to `target` and compares the checksum. After an error, the caller removes `target`.

        Args:
            target: overwritten.
            show: as in `progress_bar`.

        Raises:
            FastvaeError: no network, a server error, fewer bytes than announced, or another checksum.
            OSError: the target cannot be written.
        """
        try:
            digest = _download(self.url, target, show=show)
        except _DownloadError as error:
            by_hand = (
                f"download {self.url} (its SHA-256 {self._described()}) on another machine and put it at "
                f"{cache_folder() / self.name}"
            )
            choices = "\n".join(f"  {n}. {way}" for n, way in enumerate((by_hand, *self.alternatives), 1))
            raise FastvaeError(f"cannot download {self.what} ({error}). Instead you can:\n{choices}") from error
        self._compare(self.url, digest)

    def check(self, path: Path) -> None:
        """Compares the checksum of a file on this machine.

        Raises:
            FastvaeError: it is a different file.
            OSError: it cannot be read.
        """
        self._compare(path, sha256_of(path))

    def is_at(self, path: Path) -> bool:
        """Whether `path` can be read and has the checksum."""
        try:
            return sha256_of(path).startswith(self.sha256)
        except OSError:
            return False

    def _compare(self, place: object, digest: str) -> None:
        if not digest.startswith(self.sha256):
            raise FastvaeError(
                f"{place} is not the expected file: its SHA-256 should be one that {self._described()}; got {digest}. "
                "It is not used. Try again, or get the file another way."
            )

    def _described(self) -> str:
        return f"is {self.sha256}" if len(self.sha256) == 64 else f"begins with {self.sha256}"


def sha256_of(path: Path) -> str:
    """SHA-256 of a regular file, 64 hexadecimal digits.

    Raises:
        OSError: it cannot be read, or is a pipe or a folder.
    """
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _download(url: str, target: Path, *, show: bool | None) -> str:
    """Streams a file to `target` and returns its SHA-256."""
    digest = hashlib.sha256()
    _logger.info("downloading %s", url)
    with _open(url) as reply, target.open("wb") as file:
        length = _length(reply)
        scaled = {"unit": "B", "unit_scale": True}
        with progress_bar(what=url.rpartition("/")[2], total=length, show=show, **scaled) as bar:
            while block := _read(reply):
                file.write(block)
                digest.update(block)
                bar.update(len(block))
        if length is not None and file.tell() != length:
            raise _DownloadError(f"received {file.tell():,} of {length:,} bytes")
    return digest.hexdigest()


def _open(url: str) -> http.client.HTTPResponse:
    try:
        return urllib.request.urlopen(url, timeout=_TIMEOUT_S)
    except (OSError, http.client.HTTPException) as error:
        raise _failed(error) from error


def _read(reply: http.client.HTTPResponse) -> bytes:
    try:
        return reply.read(_BLOCK_BYTES)
    except (OSError, http.client.HTTPException) as error:
        raise _failed(error) from error


def _length(reply: http.client.HTTPResponse) -> int | None:
    announced = reply.headers.get("Content-Length", "")
    return int(announced) if announced.isascii() and announced.isdigit() and len(announced) < 16 else None


def _failed(error: Exception) -> _DownloadError:
    return _DownloadError(" ".join(str(error).split()) or type(error).__name__)
