"""The images that a figure starts from: held-out images of a data set, or image files."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fastvae.data.dataset import EMBEDDED, WrongSize, open_images
from fastvae.data.decoders.encoded import BrokenImage
from fastvae.data.decoders.pillow import decode_file
from fastvae.data.packed import PackedImages
from fastvae.errors import FastvaeError, UsageError
from fastvae.runs.open import Run


def data_of(run: Run, data: str | None) -> PackedImages:
    """The data set given with --data; without it the embedded one, if the run was trained on that.

    Raises:
        UsageError: no data set is given, or its images are not of the run's size.
        FastvaeError: as `open_images`.
    """
    if data is None:
        if run.model.run is None or run.model.run.config["data"] != EMBEDDED:
            raise UsageError("give --data: a file of `fastvae prepare`, anything that it reads, or `faces`")
        data = EMBEDDED
    try:
        return open_images(data, run.model.image_size)
    except WrongSize as error:
        size = run.model.image_size
        raise UsageError(
            f"{run.path} needs images of {size}x{size} pixels and {data} holds another size: give data that was "
            "prepared in that size"
        ) from error


def sample(indices: np.ndarray, count: int, seed: int, what: str) -> np.ndarray:
    """int64 [count]: a random sample without repetition.

    Raises:
        FastvaeError: there are fewer than `count`.
    """
    if len(indices) < count:
        raise FastvaeError(f"the figure needs {count} {what} and there are {len(indices)}: request fewer")
    return np.random.Generator(np.random.PCG64(seed)).permutation(indices)[:count]


def read_files(paths: Sequence[Path], size: int) -> np.ndarray:
    """Reads image files as uint8 [N, size, size, 3], cropped and resized as in `prepare`.

    Raises:
        FastvaeError: a file cannot be read.
    """
    images = []
    for path in paths:
        image = decode_file(path, crop="auto", size=size)
        if isinstance(image, BrokenImage):
            raise FastvaeError(f"{path} cannot be read as an image: {image.reason}")
        images.append(image)
    return np.stack(images)


def given_or_held_out(
    run: Run, files: Sequence[Path], data: str | None, count: int, seed: int
) -> tuple[np.ndarray, str]:
    """The images of the files if there are any, else held-out images of the data set.

    Returns:
        uint8 [N, H, W, 3], and their origin, for a caption.

    Raises:
        FastvaeError: they cannot be read, or are too few.
    """
    if files:
        return read_files(files, run.model.image_size), "given files"
    images = data_of(run, data)
    return images.images[sample(images.held_out(), count, seed, "held-out images")], f"held-out images, seed {seed}"
