"""A data set of picture files that are decoded when they are asked for."""

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
    """The files of a `Source`, cropped as `prepare` does by default.

    The place of a broken picture is taken by the next whole one of its split, in the order of the source, the first
    following the last: a function of the files alone. Broken ones are counted (`broken.BrokenPictures`). May be used
    from several threads.

    Args:
        source: one whose images are files.
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
            uint8 [image_size, image_size, 3], 0..255, RGB: of this picture, or of the one that stands in for it.

        Raises:
            FastvaeError: more than 1 % of all pictures are broken, or all of this split.
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
                _logger.warning("%s is broken and another picture takes its place: %s", name, image.reason)
            self._broken.check()
        split = next(name for name, code in SPLITS.items() if code == self._splits[index])
        raise FastvaeError(
            f"every picture of the {split} split is broken; replace them (one is {shown(self.paths[index])})"
        )

    def _following(self, index: int) -> Iterator[int]:
        same = np.flatnonzero(self._splits == self._splits[index])
        at = int(np.searchsorted(same, index))
        return map(int, np.concatenate([same[at + 1 :], same[:at]]))
