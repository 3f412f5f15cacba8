"""Fetching VGG-19's weights once, checked, cut to the layers that a loss network can use."""

import dataclasses
import logging
from pathlib import Path

from safetensors.torch import save_file

from fastvae.errors import FastvaeError
from fastvae.files.atomic_write import atomic_file, temporary_beside
from fastvae.files.cache import cache_folder, kept_file
from fastvae.files.downloads import DownloadError, check_digest, described, download, sha256_of
from fastvae.lossnet.formats import digest_of, read_weights
from fastvae.lossnet.network import conv_layers

logger = logging.getLogger("fastvae")

_ADVICE = "free some space, or name another folder in FASTVAE_CACHE"
_DIGEST = "sha256 of the tensors"


@dataclasses.dataclass(frozen=True)
class Source:
    """A public file of weights.

    Attributes:
        url: of a `.pth` file with a state dict.
        sha256: of that file, 64 hexadecimal digits, or as many of the first ones as are published.
        convention: the name in `convention.BY_NAME` of what the weights expect.
    """

    url: str
    sha256: str
    convention: str

    @property
    def file_name(self) -> str:
        return self.url.rsplit("/", 1)[-1]


SOURCES = {
    # J. Johnson's conversion of the original weights. Only the first eight digits of the checksum are
    # published, in the file's name, as torch.hub checks them. They show a broken file; against a forged one
    # stand https, a loader that runs no code, and the check of conv1_1's filter. Keras's file has a published
    # MD5 sum only: load it from a local path.
    "caffe": Source("https://web.eecs.umich.edu/~justincj/models/vgg19-d01eb7cb.pth", "d01eb7cb", "caffe"),
    "torchvision": Source(
        "https://download.pytorch.org/models/vgg19-dcbb9e9d.pth",
        "dcbb9e9dad569fff7a846263a77324fc34978fea2bfb039c012d710e1776ae44",
        "torchvision",
    ),
}


def fetch(name: str, source: Source, *, progress: bool) -> Path:
    """The cached `.safetensors` file of a source, downloaded if it is not there: 575 MB, 51 of them kept.

    A cached file that is damaged is fetched again. A `.pth` file that someone put into the cache folder by hand is
    checked and used instead of a download.

    Raises:
        FastvaeError: no network, an error of the server, a cache that cannot be written, or a file with another
            checksum (which is deleted again).
    """
    name_kept = Path(source.file_name).with_suffix(".safetensors").name
    if (kept := kept_file(name_kept)) is not None:
        if _is_intact(kept):
            return kept
        logger.warning("%s is damaged: it is made again", kept)
    kept, by_hand = cache_folder() / name_kept, kept_file(source.file_name)
    if by_hand is not None:
        check_digest(by_hand, sha256_of(by_hand), source.sha256)
        _convert(by_hand, kept, source)
        logger.info("%s is converted to %s and can be deleted", by_hand, kept)
        return kept
    try:
        with temporary_beside(kept.with_name(source.file_name)) as (partial, _):
            check_digest(source.url, download(source.url, partial, show=progress), source.sha256)
            _convert(partial, kept, source)
    except DownloadError as error:
        raise FastvaeError(_offline_message(name, source, error)) from error
    except OSError as error:
        raise FastvaeError(
            f"{source.url} cannot be kept in the cache folder {kept.parent} ({error.strerror or error}): {_ADVICE}"
        ) from error
    return kept


def _offline_message(name: str, source: Source, error: DownloadError) -> str:
    return (
        f"cannot download the loss network's weights for --vgg {name} ({error}). "
        f"One can:\n"
        f"  1. give a local file: --vgg PATH, with VGG-19 as .safetensors, .pth or .pt (torchvision's keys "
        f"features.N.weight) or .h5 or .npz (Keras's layer names);\n"
        f"  2. download {source.url} (whose SHA-256 {described(source.sha256)}) on another machine and put it at "
        f"{cache_folder() / source.file_name};\n"
        f"  3. try things out with --vgg random, a stand-in of random filters that needs no file."
    )


def _convert(downloaded: Path, kept: Path, source: Source) -> None:
    """Keeps the convolutions alone, as float32."""
    tensors, _ = read_weights(downloaded, set(conv_layers()))
    metadata = {"convention": source.convention, "source": source.url, _DIGEST: digest_of(tensors)}
    with atomic_file(kept, advice=_ADVICE) as temporary:
        save_file(tensors, temporary, metadata=metadata)


def _is_intact(kept: Path) -> bool:
    """Whether a file of `_convert` still holds what it was given."""
    try:
        tensors, metadata = read_weights(kept, set(conv_layers()))
    except FastvaeError:
        return False
    # Files of earlier versions have no digest.
    return metadata.get(_DIGEST) in (None, digest_of(tensors))
