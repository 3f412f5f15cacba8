"""Pictures like photographs, drawn on the spot."""

from pathlib import Path

import numpy as np
from PIL import Image


def photo(width: int = 178, height: int = 218, seed: int = 0) -> Image.Image:
    """RGB: smooth coloured noise with some grain, so that JPEG has something to do in luma and chroma."""
    random = np.random.Generator(np.random.PCG64(seed))
    coarse = random.integers(0, 256, (height // 16 + 2, width // 16 + 2, 3), dtype=np.uint8)
    smooth = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    grain = random.normal(0, 6, (height, width, 3))
    return Image.fromarray((np.asarray(smooth) + grain).clip(0, 255).astype(np.uint8))


def save_photos(folder: Path, names: list[str], *, width: int = 40, height: int = 40) -> None:
    """Saves one photo a name, in the format of its suffix, in folders that are made as needed."""
    for seed, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        photo(width, height, seed).save(folder / name)


def spoil(folder: Path) -> dict[str, Path]:
    """Writes one file for each way in which a picture can be broken."""
    folder.mkdir(parents=True, exist_ok=True)
    whole = folder / "whole.jpg"
    photo().save(whole)
    data = whole.read_bytes()
    whole.unlink()
    files = {
        "truncated": data[: len(data) // 2],
        "text": b"this is no picture, only text that is named like one\n",
        "empty": b"",
        "header only": data[:200],
    }
    paths = {}
    for name, content in files.items():
        paths[name] = folder / f"{name}.jpg"
        paths[name].write_bytes(content)
    paths["1x1"] = folder / "1x1.png"
    photo(1, 1).save(paths["1x1"])
    paths["missing"] = folder / "missing.jpg"
    return paths
