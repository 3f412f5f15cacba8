"""Downloads VGG-19's weights once, checked, and keeps the layers that a loss network can use."""

import dataclasses
import logging
from pathlib import Path

from fastvae.errors import FastvaeError
from fastvae.files.atomic_write import atomic_file, temporary_beside
from fastvae.files.cache import ADVICE, cache_folder, kept_file
from fastvae.files.downloads import PublicFile
from fastvae.files.tensor_file import digest_of, to_bytes
from fastvae.lossnet.formats import read_weights
from fastvae.lossnet.network import conv_layers

_logger = logging.getLogger("fastvae")

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


SOURCES = {
    # J. Johnson's conversion of the original weights. Only the first eight digits of the checksum are published, in the
    # file's name, as torch.hub checks them. They detect a damaged file; https, a loader that runs no code, and the
    # check of conv1_1's filter protect against a forged one. For Keras's file only an MD5 sum is published: load it
    # from a local path.
    "caffe": Source("https://web.eecs.umich.edu/~justincj/models/vgg19-d01eb7cb.pth", "d01eb7cb", "caffe"),
    "torchvision": Source(
        "https://download.pytorch.org/models/vgg19-dcbb9e9d.pth",
        "dcbb9e9dad569fff7a846263a77324fc34978fea2bfb039c012d710e1776ae44",
        "torchvision",
    ),
}


def fetch(name: str, source: Source, *, progress: bool) -> Path:
    """The cached `.safetensors` file of a source; if it is missing, 575 MB are downloaded and 51 of them kept.

    A damaged cached file is downloaded again. A `.pth` file that somebody put into the cache folder by hand is checked
    and used instead of a download.

    Raises:
        FastvaeError: no network, a server error, a cache that cannot be written, or a download with another checksum
            (which is deleted).
    """
    file = PublicFile(
        f"the loss network's weights for --vgg {name}",
        source.url,
        source.sha256,
        (
            "give a local file: --vgg PATH, with VGG-19 as .safetensors, .pth or .pt (torchvision's keys "
            "features.N.weight) or .h5 or .npz (Keras's layer names)",
            "try things out with --vgg random, a stand-in with random filters that needs no file",
        ),
    )
    kept_name = Path(file.name).with_suffix(".safetensors").name
    if (kept := kept_file(kept_name)) is not None:
        if _is_intact(kept):
            return kept
        _logger.warning("%s is damaged: making it again", kept)
    kept, by_hand = cache_folder() / kept_name, kept_file(file.name)
    if by_hand is not None:
        file.check(by_hand)
        _convert(by_hand, kept, source)
        _logger.info("%s is converted to %s and can be deleted", by_hand, kept)
        return kept
    try:
        with temporary_beside(kept.with_name(file.name)) as (temporary, _):
            file.download(temporary, show=progress)
            _convert(temporary, kept, source)
    except OSError as error:
        raise FastvaeError(
            f"{source.url} cannot be kept in the cache folder {kept.parent} ({error.strerror or error}): {ADVICE}"
        ) from error
    return kept


def _convert(downloaded: Path, kept: Path, source: Source) -> None:
    """Keeps only the convolutions, in float32."""
    tensors, _ = read_weights(downloaded, set(conv_layers()))
    metadata = {"convention": source.convention, "source": source.url, _DIGEST: digest_of(tensors)}
    with atomic_file(kept, advice=ADVICE) as temporary:
        temporary.write_bytes(to_bytes(tensors, metadata))


def _is_intact(kept: Path) -> bool:
    """Whether a file that `_convert` wrote is undamaged."""
    try:
        tensors, metadata = read_weights(kept, set(conv_layers()))
    except FastvaeError:
        return False
    # Files of earlier versions have no digest.
    return metadata.get(_DIGEST) in (None, digest_of(tensors))
