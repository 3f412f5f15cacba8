"""Tiny data sets in the layouts of CelebA and CIFAR-10."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from fastvae.data.sources.cifar10 import CLASSES

CELEBA_ATTRIBUTES = "3\nBald Smiling\n000001.jpg -1  1\n000002.jpg  1 -1\n000003.jpg -1 -1\n"
CELEBA_SPLITS = "000001.jpg 0\n000002.jpg 1\n000003.jpg 2\n"
# As Kaggle has them.
CELEBA_ATTRIBUTES_CSV = "image_id,Bald,Smiling\n000001.jpg,-1,1\n000002.jpg,1,-1\n000003.jpg,-1,-1\n"
CELEBA_SPLITS_CSV = "image_id,partition\n000001.jpg,0\n000002.jpg,1\n000003.jpg,2\n"


def write_celeba_lists(folder, *, attributes=CELEBA_ATTRIBUTES, splits=CELEBA_SPLITS):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "list_attr_celeba.txt").write_text(attributes)
    (folder / "list_eval_partition.txt").write_text(splits)


def touch_celeba_pictures(folder, numbers=(1, 2, 3), suffix="jpg"):
    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        (folder / f"{number:06}.{suffix}").touch()


CIFAR_BATCHES = [f"data_batch_{number}" for number in range(1, 6)] + ["test_batch"]
_ROWS = 3
_RANDOM = np.random.Generator(np.random.PCG64(0))
CIFAR_PIXELS = _RANDOM.integers(0, 256, (6, _ROWS, 32, 32, 3), dtype=np.uint8)
CIFAR_LABELS = _RANDOM.integers(0, 10, (6, _ROWS)).astype(np.uint8)


def write_cifar_binary(folder):
    folder.mkdir(parents=True, exist_ok=True)
    for name, pixels, labels in zip(CIFAR_BATCHES, CIFAR_PIXELS, CIFAR_LABELS, strict=True):
        planes = pixels.transpose(0, 3, 1, 2).reshape(_ROWS, 3072)
        (folder / f"{name}.bin").write_bytes(np.concatenate([labels[:, None], planes], 1).tobytes())


def write_cifar_pngs(folder, spelling="lables"):
    folder.mkdir(parents=True, exist_ok=True)
    for name, pixels in zip(CIFAR_BATCHES, CIFAR_PIXELS, strict=True):
        Image.fromarray(pixels.reshape(_ROWS, 1024, 3)).save(folder / f"{name}.png")
    (folder / f"train_{spelling}.json").write_text(json.dumps(CIFAR_LABELS[:5].ravel().tolist()))
    (folder / f"test_{spelling}.json").write_text(json.dumps(CIFAR_LABELS[5].tolist()))


def write_cifar_folders(folder):
    for split, count in (("train", 2), ("test", 1)):
        for label, name in enumerate(CLASSES):
            (folder / split / name).mkdir(parents=True)
            for number in range(count):
                Image.fromarray(np.full((32, 32, 3), label, np.uint8)).save(folder / split / name / f"{number}.png")


def names_in(folder: Path) -> list[str]:
    """Names of what a folder holds, sorted."""
    return sorted(entry.name for entry in folder.iterdir())
