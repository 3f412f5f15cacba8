"""A folder with one PNG for each numbered image of the prior. Each says what it is a picture of."""

import json
import os
import re
from pathlib import Path

import numpy as np
from PIL import Image

from fastvae.errors import FastvaeError, UsageError
from fastvae.files.atomic_write import remove_abandoned
from fastvae.pictures import save_picture

_KEY = "fastvae"  # of the PNG's text


class DrawnFiles:
    """The files of one model and seed in a folder, such as seed0-000123.png.

    Args:
        folder: created with the first file.
        weights: digest of the model's weights.
        seed: of the draws.
    """

    def __init__(self, folder: Path, *, weights: str, seed: int):
        self._folder, self._weights, self._seed = folder, weights, seed
        remove_abandoned(folder)

    def path(self, number: int) -> Path:
        """Where an image belongs."""
        return self._folder / f"seed{self._seed}-{number:06d}.png"

    def finished(self, numbers: range, *, overwrite: bool) -> set[int]:
        """Which of the images are there and undamaged; damaged files count as missing.

        Args:
            numbers: of the images.
            overwrite: whether pictures of something else count as missing, too.

        Raises:
            UsageError: a file of that name is a picture of something else.
            FastvaeError: the folder cannot be read.
        """
        finished, name = set(), re.compile(rf"seed{self._seed}-(\d{{6,}})\.png")
        try:
            entries = os.listdir(self._folder)  # noqa: PTH208  (names that are no paths are passed over)
        except FileNotFoundError:
            return finished
        except OSError as error:
            raise FastvaeError(f"{self._folder} cannot be read ({error.strerror})") from error
        for entry in entries:
            if (match := name.fullmatch(entry)) and (number := int(match[1])) in numbers:
                text = _text_of(self.path(number))
                if text == self._text(number):
                    finished.add(number)
                elif text is not None and not overwrite:
                    raise UsageError(
                        f"{self.path(number)} is a picture of something else, such as another model's: choose another "
                        "--folder, or give --overwrite to replace it"
                    )
        return finished

    def write(self, number: int, pixels: np.ndarray) -> None:
        """Writes an image, uint8 [H, W, 3], without flushing it to the disk: `finished` sees what a power failure did.

        Raises:
            FastvaeError: it cannot be written; no incomplete file is left.
        """
        save_picture(pixels, self.path(number), text={_KEY: self._text(number)}, durable=False)

    def _text(self, number: int) -> str:
        return json.dumps({"model": self._weights, "seed": self._seed, "number": number})


def _text_of(path: Path) -> str | None:
    """What the text of a PNG says, "" if it says nothing; None if it is not a complete, undamaged PNG."""
    try:
        with Image.open(path, formats=("PNG",)) as picture:
            text = picture.info.get(_KEY, "")
            picture.verify()
    except Exception:  # Pillow raises errors of many classes for damaged files
        return None
    return text if isinstance(text, str) else ""
