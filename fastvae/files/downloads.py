"""Fetching public files: checked, complete under their names or not there."""

import hashlib
import http.client
import logging
import urllib.error
import urllib.request
from pathlib import Path

from fastvae.errors import FastvaeError
from fastvae.files.atomic_write import atomic_file
from fastvae.files.reading import open_regular
from fastvae.progress_bar import progress_bar

# Also between two blocks of data. A machine without a network should say so at once.
_TIMEOUT_S = 10
_BLOCK_BYTES = 1 << 20
_ADVICE = "free some space, or name another cache folder in FASTVAE_CACHE"
_logger = logging.getLogger("fastvae")


class DownloadError(Exception):
    """The network or the server failed; the message says how, and whoever asked says what to do."""


def fetch_file(url: str, path: Path, *, sha256: str, show: bool | None = None) -> None:
    """Downloads a file, and gives it its name once it is complete and has its checksum.

    Args:
        url: http or https.
        path: of the file.
        sha256: as in `check_digest`.
        show: as in `download`.

    Raises:
        DownloadError: no network, an error of the server, or fewer bytes than it announced.
        FastvaeError: it has another checksum, or cannot be written.
    """
    with atomic_file(path, advice=_ADVICE) as temporary:
        check_digest(url, download(url, temporary, show=show), sha256)


def download(url: str, target: Path, *, show: bool | None = None) -> str:
    """Streams a file to `target`.

    Args:
        url: http or https.
        target: written from its beginning; what is there after an error is for the caller to remove.
        show: as in `progress_bar`.

    Returns:
        The SHA-256, 64 hexadecimal digits.

    Raises:
        DownloadError: no network, an error of the server, or fewer bytes than it announced.
        OSError: the target cannot be written.
    """
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
            raise DownloadError(f"{file.tell():,} of {length:,} bytes came")
    return digest.hexdigest()


def sha256_of(path: Path) -> str:
    """Of a regular file, 64 hexadecimal digits.

    Raises:
        OSError: it cannot be read, or is a pipe or a folder.
    """
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_digest(what: object, found: str, expected: str) -> None:
    """Whether a file is the one that it should be.

    Args:
        what: a path or a url, for the message.
        found: SHA-256 of the file, 64 hexadecimal digits.
        expected: the same, or as many of the first digits as are published.

    Raises:
        FastvaeError: it is another one.
    """
    if not found.startswith(expected):
        raise FastvaeError(
            f"{what} is not the file it should be: expected a SHA-256 that {described(expected)}, got {found}. "
            "It is not used. Try again, or get the file another way."
        )


def described(sha256: str) -> str:
    """What is known of a checksum, as "is 0123..." or "begins with 0123"."""
    return f"is {sha256}" if len(sha256) == 64 else f"begins with {sha256}"


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


def _failed(error: Exception) -> DownloadError:
    return DownloadError(" ".join(str(error).split()) or type(error).__name__)
