"""Fetching the standard Inception network once, checked."""

import os
from pathlib import Path

from fastvae.cache import cache_folder
from fastvae.downloads import DownloadError, download, sha256_of
from fastvae.errors import FastvaeError

URL = "https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/metrics/inception-2015-12-05.pt"
# NVIDIA publishes none. This is what k-diffusion and others check their downloads of this address against.
SHA256 = "f58cb9b6ec323ed63459aa4fb441fe750cfe39fafad6da5cb504a16f19e958f4"


def fetch() -> Path:
    """The file in the cache folder, 96 MB, downloaded if it is not there; one put there by hand is as good.

    Raises:
        FastvaeError: no network, an error of the server, a cache that cannot be written, or another file than it
            should be (a downloaded one is deleted again).
    """
    path = cache_folder() / URL.rpartition("/")[2]
    if path.is_file():
        _verify(path, sha256_of(path))
        return path
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            _verify(URL, download(URL, partial))
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    except DownloadError as error:
        raise FastvaeError(
            f"cannot download the Inception network ({error}). One can:\n"
            f"  1. download {URL} (SHA-256 {SHA256}) on another machine and put it at {path};\n"
            "  2. give a local file: --inception FILE; one of the features alone is enough for FID;\n"
            "  3. leave FID and Inception Score out: --inception none."
        ) from error
    except OSError as error:
        raise FastvaeError(
            f"the cache folder {path.parent} cannot be written ({error.strerror or error}). Free some space, or set "
            "FASTVAE_CACHE to another folder."
        ) from error
    return path


def _verify(what: object, found: str) -> None:
    if found != SHA256:
        raise FastvaeError(
            f"{what} is not the file it should be: expected the SHA-256 {SHA256}, got {found}. It is a program and is "
            "not run. Delete it if it is there, and try again or get it another way."
        )
