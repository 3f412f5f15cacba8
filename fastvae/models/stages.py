"""How often the networks halve an image, and how wide their maps are: one rule for every image size and network."""

import operator
from typing import NamedTuple

SMALLEST_IMAGE, LARGEST_IMAGE = 8, 1024  # pixels a side
MOST_STAGES = 10  # they halve the largest image to a single pixel
# The paper has 1, 2, 4 and 8 times the width; further stages stay there.
_WIDEST = 8


class Stages(NamedTuple):
    """The stages of a network, counted from the image.

    Attributes:
        widths: channels of each stage: the width times 1, 2, 4, 8, 8, ...
        side: height and width of the map that the last one leaves, in pixels.
    """

    widths: tuple[int, ...]
    side: int


def stages_of(image_size: int, width: int, stages: int | None = None) -> Stages:
    """The stages of every network for images of this size.

    Args:
        image_size: height and width of the images in pixels.
        width: channels of the stage at the image.
        stages: how many there are; None for as many as leave a map of 4x4 to 7x7.

    Raises:
        ValueError: as `count_stages`.
    """
    count = count_stages(image_size, stages)
    return Stages(tuple(width * min(2**stage, _WIDEST) for stage in range(count)), image_size >> count)


def count_stages(image_size: int, stages: int | None = None) -> int:
    """How often an image is halved: `stages`, or if that is None floor(log2(image_size / 4)).

    The latter is 3 at 32x32, 4 at 64x64, 5 at 128x128. It leaves a map of 4x4, as the paper has it at 64x64, to 7x7.

    Raises:
        ValueError: the size is not from 8 to 1024, or cannot be halved that often without remainder.
    """
    image_size = operator.index(image_size)
    if not SMALLEST_IMAGE <= image_size <= LARGEST_IMAGE:
        raise ValueError(f"expected an image size from {SMALLEST_IMAGE} to {LARGEST_IMAGE}; got {image_size}")
    possible = (image_size & -image_size).bit_length() - 1
    if stages is not None:
        if not 1 <= stages <= possible:
            most = f"expected 1 to {possible}, since each halves the map" if possible else "it cannot be halved"
            raise ValueError(f"{stages} stages do not fit an image size of {image_size}: {most}")
        return stages
    count = _by_size(image_size)
    if image_size % 2**count:
        fitting = [size for size in range(SMALLEST_IMAGE, LARGEST_IMAGE + 1) if size % 2 ** _by_size(size) == 0]
        below, above = max(s for s in fitting if s < image_size), min(s for s in fitting if s > image_size)
        raise ValueError(
            "expected an image size of 4, 5, 6 or 7 times a power of two, so that halving it leaves a map of 4x4 to "
            f"7x7; got {image_size}: {below} and {above} are the nearest"
            + (f", or choose the number of stages, 1 to {possible}" if possible else "")
        )
    return count


def _by_size(image_size: int) -> int:
    return (image_size // 4).bit_length() - 1
