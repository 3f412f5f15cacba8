"""Pictures like CelebA's, made on the spot: drawn faces as JPEGs of 178x218 pixels, quality 90, 8 KB each."""

from pathlib import Path

from PIL import Image

from fastvae.data.faces.faces import draw_faces

_DRAWN_SIZE = 224
# A face takes 27 ms to draw, and a JPEG of it 0.6 ms to make: each is used several times, shifted and mirrored.
_EACH = 8


def write_jpegs(folder: Path, count: int) -> list[Path]:
    """Writes `count` different pictures, 000000.jpg and so on.

    Args:
        folder: where; made.
        count: 1 or more.

    Returns:
        The files, sorted.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{number:06}.jpg" for number in range(count)]
    faces = draw_faces(-(-count // _EACH), size=_DRAWN_SIZE)[0]
    for number, path in enumerate(paths):
        face, variant = divmod(number, _EACH)
        picture = Image.fromarray(faces[face])
        if variant % 2:
            picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        edge = 4 * (variant // 2)
        box = (edge, 0, edge + _DRAWN_SIZE - 16, _DRAWN_SIZE)
        picture.resize((178, 218), Image.Resampling.BICUBIC, box=box).save(path, quality=90)
    return paths
