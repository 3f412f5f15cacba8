"""A data set of picture files, decoded on demand."""

import logging
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import numpy as np

from fastvae.data.decoders import pillow as decode_pillow
from fastvae.data.loaders.broken import BrokenPictures
from fastvae.data.packed import SPLITS
from fastvae.data.sources.source import Source
from fastvae.errors import FastvaeError
from fastvae.files.places import shown

CROP = "auto"
_logger = logging.getLogger("fastvae")


class PictureFiles:
    """The files of a `Source`, cropped like `prepare` does by default. Thread-safe.

    A broken picture is replaced by the next intact one of its split, in the order of the source and cyclically, so the
    result depends only on the files. Broken pictures are counted (`broken.BrokenPictures`).

    Args:
        source: one with picture files.
        image_size: pixels a side.

    Attributes:
        paths: N files.
        image_size: pixels a side.
    """

    def __init__(self, source: Source, image_size: int):
        self.paths: list[Path] = source.images
        self.image_size = image_size
        self._splits = source.splits
        self._names = source.names
        self._broken = BrokenPictures(source.names, "remove or replace them")

    def decode(self, index: int) -> np.ndarray:
        """One picture, decoded by Pillow.

        Args:
            index: 0 to N - 1.

        Returns:
            uint8 [image_size, image_size, 3], 0..255, RGB: this picture, or its replacement if it is broken.

        Raises:
            FastvaeError: more than 1 % of all pictures, or all pictures of this split, are broken.
        """
        index = int(index)
        for candidate in chain((index,), self._following(index)):
            if candidate in self._broken:
                continue
            image = decode_pillow.decode_file(self.paths[candidate], crop=CROP, size=self.image_size)
            if isinstance(image, np.ndarray):
                return image
            if self._broken.add(candidate, image.reason):
                name = shown(self._names[candidate])
                _logger.warning("%s is broken and replaced by another picture: %s", name, image.reason)
            self._broken.check()
        split = next(name for name, code in SPLITS.items() if code == self._splits[index])
        raise FastvaeError(
            f"every picture of the {split} split is broken; replace them (such as {shown(self.paths[index])})"
        )

    def _following(self, index: int) -> Iterator[int]:
        same = np.flatnonzero(self._splits == self._splits[index])
        at = int(np.searchsorted(same, index))
        return map(int, np.concatenate([same[at + 1 :], same[:at]]))
