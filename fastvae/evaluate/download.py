"""Fetching the standard Inception network once, checked."""

import logging
from pathlib import Path

from fastvae.errors import FastvaeError
from fastvae.files.cache import cache_folder, kept_file
from fastvae.files.downloads import DownloadError, fetch_file, sha256_of

URL = "https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/metrics/inception-2015-12-05.pt"
# NVIDIA publishes none. This is what k-diffusion and others check their downloads of this address against.
SHA256 = "f58cb9b6ec323ed63459aa4fb441fe750cfe39fafad6da5cb504a16f19e958f4"
_logger = logging.getLogger("fastvae")


def fetch() -> Path:
    """The file in the cache folder, 96 MB, downloaded if it is not there; one put there by hand is as good.

    It is a program, so that one with another checksum is not run, but fetched again.

    Raises:
        FastvaeError: no network, an error of the server, a cache that cannot be written, or another file than it
            should be (a downloaded one is deleted again).
    """
    name = URL.rpartition("/")[2]
    if (kept := kept_file(name)) is not None:
        if _digest(kept) == SHA256:
            return kept
        _logger.warning("%s is damaged or another file: it is not run, and downloaded again", kept)
    path = cache_folder() / name
    try:
        fetch_file(URL, path, sha256=SHA256)
    except DownloadError as error:
        raise FastvaeError(
            f"cannot download the Inception network ({error}). One can:\n"
            f"  1. download {URL} (SHA-256 {SHA256}) on another machine and put it at {path};\n"
            "  2. give a local file: --inception FILE; one of the features alone is enough for FID;\n"
            "  3. leave FID and Inception Score out: --inception none."
        ) from error
    return path


def _digest(path: Path) -> str | None:
    try:
        return sha256_of(path)
    except OSError:
        return None
