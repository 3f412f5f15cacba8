"""A folder of drawn faces as CelebA's JPEGs are, and everything that can be wrong or odd about a few of them."""

from pathlib import Path

import numpy as np
from PIL import Image

from fastvae.data.faces.faces import draw_faces
from fastvae.data.loaders.picture_files import PictureFiles
from fastvae.data.sources.folder import read_folder
from tests.data.pictures import photo


def save_faces(folder: Path, count: int) -> None:
    """Saves 178x218 JPEGs of quality 90, 0000.jpg and so on."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, pixels in enumerate(draw_faces(count, size=96)[0]):
        Image.fromarray(pixels).resize((178, 218), Image.Resampling.BICUBIC).save(
            folder / f"{number:04}.jpg", quality=90
        )


def save_many(folder: Path) -> None:
    """400 pictures, so that four of them may be broken; the last 380 are links to others."""
    save_faces(folder, 20)
    for number in range(20, 400):
        (folder / f"{number:04}.jpg").hardlink_to(folder / f"{10 + number % 10:04}.jpg")


def overwrite(path: Path, data: bytes) -> None:
    """Gives one file another content, and none of those that are linked to it."""
    path.unlink()
    path.write_bytes(data)


def spoil(folder: Path) -> dict[str, int]:
    """Turns files of a folder of `save_many` into broken ones; their indices by what is wrong with them."""
    indices = {"missing": 0, "truncated": 7, "text": 8, "empty": 9}
    file = {name: folder / f"{index:04}.jpg" for name, index in indices.items()}
    overwrite(file["truncated"], file["truncated"].read_bytes()[:2000])
    overwrite(file["text"], b"no picture")
    overwrite(file["empty"], b"")
    file["missing"].unlink()
    return indices


def make_odd(folder: Path) -> dict[str, int]:
    """Turns files of a folder of `save_faces` into whole pictures that are no plain JPEGs; indices by kind."""
    indices = {"turned": 1, "cmyk": 2, "grey": 3, "png": 4, "large": 5}
    file = {name: folder / f"{index:04}.jpg" for name, index in indices.items()}
    exif = Image.Exif()
    exif[0x0112] = 6
    photo(seed=1).save(file["turned"], exif=exif)
    photo(seed=2).convert("CMYK").save(file["cmyk"])
    photo(seed=3).convert("L").save(file["grey"])
    photo(seed=4).save(file["png"], "PNG")
    photo(21, 20, seed=5).resize((2100, 2000)).save(file["large"])
    return indices


def hollow_out(path: Path) -> None:
    """Takes a plain JPEG's Huffman tables out: from outside it looks whole, and neither DALI nor Pillow decodes it."""
    data = path.read_bytes()
    overwrite(path, data[: data.index(b"\xff\xc4")] + b"\xff\xda\x00\x02" + bytes(50) + b"\xff\xd9")


def pictures_in(folder: Path, image_size: int = 64) -> PictureFiles:
    """The folder's files, as a training set opens them."""
    return PictureFiles(read_folder(folder), image_size)


def in_batches(indices, size: int) -> list[np.ndarray]:
    """Cuts indices into batches, the last one perhaps shorter."""
    indices = np.asarray(indices, np.int64)
    return [indices[at : at + size] for at in range(0, len(indices), size)]
