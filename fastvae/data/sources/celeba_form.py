"""Which of CelebA's pictures these are, by the sizes of some of them: aligned, in the wild, or resized by somebody."""

from io import BytesIO
from itertools import islice
from pathlib import Path

from PIL import Image

from fastvae.data.containers.container import Container
from fastvae.data.decoders.crop import CELEBA_SIZE
from fastvae.data.decoders.encoded import BrokenImage
from fastvae.data.decoders.pillow import FORMATS
from fastvae.data.sources.celeba_places import has_its_name
from fastvae.data.sources.source import Source
from fastvae.files.reading import open_regular

_LOOKED_AT = 8
_IN_THE_WILD = (
    "these are CelebA's pictures in the wild, not aligned and of different sizes: unless another crop is chosen, the "
    "largest centred square of each is used, wherever the face is; the paper uses the aligned ones, img_align_celeba"
)


def form_of(images: list[Path] | Container, folder: str) -> tuple[str, tuple[str, ...]]:
    """The form of the pictures, and what to warn of.

    Args:
        images: the pictures, of which up to eight are opened, but not decoded.
        folder: the name of their folder.
    """
    sizes = set(picture_sizes(images))
    aligned = f"{CELEBA_SIZE[0]}x{CELEBA_SIZE[1]}"
    if sizes == {CELEBA_SIZE}:
        return f"aligned, {aligned}", ()
    if folder == "img_celeba" or len(sizes) > 1:
        return "in the wild", (_IN_THE_WILD,)
    if not sizes:
        return "", ()
    ((width, height),) = sizes
    note = f"these are not CelebA's own pictures of {aligned}: the largest centred square of each is used"
    return f"{width}x{height}", () if width == height else (note,)


def looks_like_celeba(source: Source) -> bool:
    """Whether most pictures have CelebA's names, and the first one the size of the aligned ones."""
    if sum(map(has_its_name, source.names)) * 2 < len(source.names):
        return False
    return not hasattr(source.images, "dtype") and picture_sizes(source.images, 1) == [CELEBA_SIZE]


def picture_sizes(images: list[Path] | Container, count: int = _LOOKED_AT) -> list[tuple[int, int]]:
    """Width and height of `count` pictures, evenly spaced if they are files; of those that can be opened."""
    some = images[:: max(1, len(images) // count)][:count] if isinstance(images, list) else islice(iter(images), count)
    return [size for picture in some if (size := _size(picture)) is not None]


def _size(picture: Path | bytes | BrokenImage) -> tuple[int, int] | None:
    if isinstance(picture, BrokenImage):
        return None
    try:
        file = BytesIO(picture) if isinstance(picture, bytes) else open_regular(picture)
        with file, Image.open(file, formats=FORMATS) as opened:
            return opened.size
    except Exception:  # Pillow may raise anything for damaged files
        return None
