"""Fetching a public file: with progress, digested on the way."""

import hashlib
import http.client
import logging
import ssl
import urllib.error
import urllib.request
from pathlib import Path

from tqdm import tqdm

# Also between two blocks of data. A machine without a network should say so at once.
_TIMEOUT_S = 10
_BLOCK_BYTES = 1 << 20
_logger = logging.getLogger("fastvae")


class DownloadError(Exception):
    """The network or the server failed; the words say how, and whoever asked says what to do."""


def download(url: str, target: Path, *, progress: bool | None = None) -> str:
    """Streams a file to `target`.

    Args:
        url: http or https.
        target: written from its beginning; what is there after an error is for the caller to remove.
        progress: whether to show a bar on standard error; None for where that is a terminal.

    Returns:
        The SHA-256, 64 hexadecimal digits.

    Raises:
        DownloadError: no network, an error of the server, or fewer bytes than it announced.
        OSError: the target cannot be written.
    """
    digest = hashlib.sha256()
    _logger.info("downloading %s", url)
    disable = None if progress is None else not progress
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as reply:
            length = int(reply.headers.get("Content-Length") or 0)
            bar = tqdm(total=length or None, unit="B", unit_scale=True, desc=url.rpartition("/")[2], disable=disable)
            with bar, target.open("wb") as file:
                while block := reply.read(_BLOCK_BYTES):
                    file.write(block)
                    digest.update(block)
                    bar.update(len(block))
                if length and file.tell() != length:
                    raise http.client.IncompleteRead(b"", length - file.tell())
    # OSError would cover URLError, but also a full disk, which is no matter of the network.
    except (urllib.error.URLError, http.client.HTTPException, ssl.SSLError, TimeoutError, ConnectionError) as error:
        raise DownloadError(str(error) or type(error).__name__) from error
    return digest.hexdigest()


def sha256_of(path: Path) -> str:
    """Of a file, 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
