"""Downloads the standard Inception network once, checked."""

import logging
from pathlib import Path

from fastvae.files.atomic_write import atomic_file
from fastvae.files.cache import ADVICE, cache_folder, kept_file
from fastvae.files.downloads import PublicFile

URL = "https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/metrics/inception-2015-12-05.pt"
# NVIDIA publishes none. This is what k-diffusion and others check their downloads of this address against.
SHA256 = "f58cb9b6ec323ed63459aa4fb441fe750cfe39fafad6da5cb504a16f19e958f4"
_logger = logging.getLogger("fastvae")


def fetch() -> Path:
    """The file in the cache folder, 96 MB; downloaded unless it is there, perhaps put there by hand.

    The file is a program, so one with another checksum is not run but downloaded again.

    Raises:
        FastvaeError: no network, a server error, a cache that cannot be written, or a download with another
            checksum (which is deleted).
    """
    file = PublicFile(
        "the Inception network",
        URL,
        SHA256,
        (
            "give a local file: --inception FILE; a features-only file is enough for FID",
            "skip FID and Inception Score: --inception none",
        ),
    )
    if (kept := kept_file(file.name)) is not None:
        if file.is_at(kept):
            return kept
        _logger.warning("%s is damaged or a different file: it is not run but downloaded again", kept)
    path = cache_folder() / file.name
    with atomic_file(path, advice=ADVICE) as temporary:
        file.download(temporary)
    return path
