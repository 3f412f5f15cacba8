"""Fetching VGG-19's weights once, checked, cut to the layers that a loss network can use."""

import dataclasses
import logging
import os
from pathlib import Path

from safetensors.torch import save_file

from fastvae.cache import cache_folder
from fastvae.downloads import DownloadError, download, sha256_of
from fastvae.errors import FastvaeError
from fastvae.lossnet.formats import read_weights
from fastvae.lossnet.network import conv_layers

logger = logging.getLogger("fastvae")


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

    A `.pth` file that someone put into the cache folder by hand is checked and used instead of a download.

    Raises:
        FastvaeError: no network, an error of the server, or a file with another checksum (which is deleted
            again).
    """
    folder = cache_folder()
    kept = folder / Path(source.file_name).with_suffix(".safetensors").name
    if kept.is_file():
        return kept
    by_hand = folder / source.file_name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if by_hand.is_file():
            _verify(by_hand, sha256_of(by_hand), source)
            _convert(by_hand, kept, source)
            logger.info("%s is converted to %s and can be deleted", by_hand, kept)
            return kept
        # Another process may be downloading the same file.
        partial = by_hand.with_name(f"{by_hand.stem}.{os.getpid()}.partial.pth")
        try:
            _verify(source.url, download(source.url, partial, progress=progress), source)
            _convert(partial, kept, source)
        finally:
            partial.unlink(missing_ok=True)
    except DownloadError as error:
        raise FastvaeError(_offline_message(name, source, error)) from error
    except OSError as error:
        raise FastvaeError(
            f"the cache folder {folder} cannot be written ({error}). Free some space, or set "
            f"FASTVAE_CACHE to another folder."
        ) from error
    return kept


def _offline_message(name: str, source: Source, error: DownloadError) -> str:
    return (
        f"cannot download the loss network's weights for --vgg {name} ({error}). "
        f"One can:\n"
        f"  1. give a local file: --vgg PATH, with VGG-19 as .safetensors, .pth or .pt (torchvision's keys "
        f"features.N.weight) or .h5 or .npz (Keras's layer names);\n"
        f"  2. download {source.url} (SHA-256 {_described(source)}) on another machine and put it at "
        f"{cache_folder() / source.file_name};\n"
        f"  3. try things out with --vgg random, a stand-in of random filters that needs no file."
    )


def _described(source: Source) -> str:
    return source.sha256 if len(source.sha256) == 64 else f"begins with {source.sha256}"


def _verify(what: object, sha256: str, source: Source) -> None:
    if not sha256.startswith(source.sha256):
        raise FastvaeError(
            f"{what} is not the file it should be: expected a SHA-256 that is or {_described(source)}, got "
            f"{sha256}. It is not used. Try again, or get the file from {source.url} another way."
        )


def _convert(downloaded: Path, kept: Path, source: Source) -> None:
    """Keeps the convolutions alone, as float32, under a name that appears only when the file is whole."""
    tensors, _ = read_weights(downloaded, set(conv_layers()))
    partial = kept.with_name(f"{kept.stem}.{os.getpid()}.partial")
    try:
        save_file(tensors, partial, metadata={"convention": source.convention, "source": source.url})
        partial.replace(kept)
    finally:
        partial.unlink(missing_ok=True)
