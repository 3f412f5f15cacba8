"""The images of a data set in order, decoded on the way: a folder is neither prepared nor held in memory."""

from collections.abc import Callable, Generator
from dataclasses import dataclass

import numpy as np

from fastvae.data import identity
from fastvae.data.dataset import EMBEDDED, WrongSize, identity_of, is_packed, open_images
from fastvae.data.decoders.encoded import BrokenImage
from fastvae.data.packed import SPLITS, PackedImages
from fastvae.data.prepare import decoded
from fastvae.data.sources.detect import read_source
from fastvae.data.sources.hub import place_of
from fastvae.errors import FastvaeError, UsageError
from fastvae.files.places import shown

_CROP = "auto"


@dataclass(frozen=True)
class Images:
    """N images that are not decoded yet.

    Attributes:
        place: where they come from, for messages.
        names: N names; those of images without one are their indices.
        splits: uint8 [N], 0 train, 1 validation, 2 test.
        digest: identifies them, their order and their splits; 64 hexadecimal digits.
        decode: (int64 [n], ascending) -> for each of these images uint8 [H, W, 3], 0..255, RGB, or a BrokenImage.
    """

    place: str
    names: list[str]
    splits: np.ndarray
    digest: str
    decode: Callable[[np.ndarray], Generator[np.ndarray | BrokenImage, None, None]]

    def of_split(self, split: str) -> np.ndarray:
        """int64 [n], ascending: the images of a split, or of "all".

        Raises:
            FastvaeError: there are none.
        """
        indices = np.arange(len(self.names)) if split == "all" else np.flatnonzero(self.splits == SPLITS[split])
        if not len(indices):
            raise FastvaeError(f"{self.place} has no images in its {split} split; use another --split")
        return indices


def open_all(data: str, size: int) -> Images:
    """All images of a data set, of every split.

    Args:
        data: "faces", a packed file, or anything that `prepare` reads, cropped and resized as it does.
        size: pixels a side.

    Raises:
        UsageError: a packed file has images of another size.
        FastvaeError: the data are missing, empty or damaged.
    """
    path = place_of(data)
    if data == EMBEDDED or is_packed(path):
        return _packed(data, size)
    source = read_source(path)
    return Images(
        place=shown(path),
        names=source.names,
        splits=source.splits,
        digest=identity.digest_of_source(source, _CROP),
        decode=lambda indices: decoded(source, indices, crop=_CROP, size=size)[0],
    )


def _packed(data: str, size: int) -> Images:
    try:
        images = open_images(data, size)
    except WrongSize as error:
        raise UsageError(
            f"the model takes images of {size}x{size} pixels and {data} holds others: give the folder of the pictures, "
            f"or prepare them in that size, fastvae prepare FOLDER OUT.fvae --image-size {size}"
        ) from error
    return Images(
        place=shown(images.path),
        names=list(images.names) or [str(index) for index in range(len(images))],
        splits=np.asarray(images.splits),
        digest=identity_of(data, images).digest,
        decode=lambda indices: _rows(images, indices),
    )


def _rows(images: PackedImages, indices: np.ndarray) -> Generator[np.ndarray, None, None]:
    for index in indices:
        yield images.images[index]
