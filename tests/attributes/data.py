"""A small data set with attributes that can be seen in the pixels, and tiny weights in the shape of VGG-19."""

from pathlib import Path

import numpy as np
import torch

from fastvae.data.packed import PackedImages, PackedWriter

NAMES = ("Smiling", "Bald", "Pale_Skin", "Has_Antenna")


def write(path: Path, *, counts: tuple[int, int, int] = (60, 24, 30), kind: str = "celeba") -> PackedImages:
    """Bright pictures are Smiling; Bald is chance; all are Pale_Skin; Has_Antenna is CelebA's neither in name."""
    random = np.random.Generator(np.random.PCG64(0))
    splits = np.repeat([0, 1, 2], counts)
    bright = np.arange(len(splits)) % 2 == 0
    images = np.where(bright[:, None, None, None], 200, 60) + random.integers(-40, 40, (len(splits), 32, 32, 3))
    chance = random.permutation(np.arange(len(splits)) % 3 == 0)
    attributes = np.stack([bright, chance, np.ones_like(bright), ~bright], 1)
    with PackedWriter(path, image_size=32, attribute_names=NAMES) as writer:
        writer.append(images.astype(np.uint8), splits=splits, attributes=attributes)
        writer.info = {"kind": kind}
    return PackedImages.open(path)


def tiny_vgg(widths: tuple[int, ...] = (2, 2, 2, 2, 2), fc: tuple[int, int] = (5, 3)) -> dict[str, torch.Tensor]:
    """Weights under torchvision's keys: a width for each block, and of both fully connected layers."""
    random, weights, inputs, index = torch.Generator().manual_seed(0), {}, 3, 0

    def add(name: str, *shape: int) -> None:
        fan_in = int(np.prod(shape[1:]))
        weights[f"{name}.weight"] = torch.randn(shape, generator=random) * (2 / fan_in) ** 0.5
        weights[f"{name}.bias"] = torch.rand(shape[0], generator=random)

    for width, count in zip(widths, (2, 2, 4, 4, 4), strict=True):
        for _ in range(count):
            add(f"features.{index}", width, inputs, 3, 3)
            inputs, index = width, index + 2
        index += 1
    add("classifier.0", fc[0], inputs * 49)
    add("classifier.3", fc[1], fc[0])
    return weights
