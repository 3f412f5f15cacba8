"""Tiny data sets in the layouts of CelebA and CIFAR-10."""

import json
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image

from fastvae.data.sources.cifar10 import CLASSES
from tests.data.pickles import python2_pickle

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


def write_cifar_pickles(folder, dump=python2_pickle):
    """As `cifar-10-python.tar.gz` has them; `dump` makes the bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, (name, pixels, labels) in enumerate(zip(CIFAR_BATCHES, CIFAR_PIXELS, CIFAR_LABELS, strict=True), 1):
        fields = {
            "batch_label": f"training batch {number} of 5" if number < 6 else "testing batch 1 of 1",
            "labels": labels.tolist(),
            "data": pixels.transpose(0, 3, 1, 2).reshape(_ROWS, 3072),
            "filenames": [f"leptodactylus_pentadactylus_s_{row:06}.png" for row in range(_ROWS)],
        }
        (folder / name).write_bytes(dump(fields))
    names = {"num_cases_per_batch": 10000, "label_names": list(CLASSES), "num_vis": 3072}
    (folder / "batches.meta").write_bytes(dump(names))


CIFAR100_NAMES = [f"class_{number:02}" for number in range(100)]
CIFAR100_LABELS = np.array([99, 0, 42])


def write_cifar100(folder, dump=python2_pickle):
    """As `cifar-100-python.tar.gz` has it."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, pixels in (("train", CIFAR_PIXELS[0]), ("test", CIFAR_PIXELS[5])):
        fields = {
            "filenames": [f"bos_taurus_s_{row:06}.png" for row in range(_ROWS)],
            "batch_label": f"{name}ing batch 1 of 1",
            "fine_labels": CIFAR100_LABELS.tolist(),
            "coarse_labels": [0, 1, 2],
            "data": pixels.transpose(0, 3, 1, 2).reshape(_ROWS, 3072),
        }
        (folder / name).write_bytes(dump(fields))
    names = {"fine_label_names": CIFAR100_NAMES, "coarse_label_names": [f"group_{number}" for number in range(20)]}
    (folder / "meta").write_bytes(dump(names))


def write_cifar100_binary(folder):
    folder.mkdir(parents=True, exist_ok=True)
    for name, pixels in (("train", CIFAR_PIXELS[0]), ("test", CIFAR_PIXELS[5])):
        planes = pixels.transpose(0, 3, 1, 2).reshape(_ROWS, 3072)
        labels = np.stack([np.arange(3), CIFAR100_LABELS], 1).astype(np.uint8)
        (folder / f"{name}.bin").write_bytes(np.concatenate([labels, planes], 1).tobytes())
    (folder / "fine_label_names.txt").write_text("\n".join(CIFAR100_NAMES) + "\n")


def packed_tar(folder: Path, archive: Path, prefix: str) -> Path:
    """Packs a folder's files as .tar or, by the ending, .tar.gz, below the folder `prefix`, and removes the folder."""
    with tarfile.open(archive, "w:gz" if archive.name.endswith("gz") else "w") as tar:
        for file in sorted(folder.iterdir()):
            tar.add(file, f"{prefix}/{file.name}")
            file.unlink()
    folder.rmdir()
    return archive


def write_cifar_folders(folder):
    for split, count in (("train", 2), ("test", 1)):
        for label, name in enumerate(CLASSES):
            (folder / split / name).mkdir(parents=True)
            for number in range(count):
                Image.fromarray(np.full((32, 32, 3), label, np.uint8)).save(folder / split / name / f"{number}.png")


def names_in(folder: Path) -> list[str]:
    """Names of what a folder holds, sorted."""
    return sorted(entry.name for entry in folder.iterdir())
