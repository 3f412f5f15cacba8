"""A run that takes a second, to try out the measuring of runs; its figures mean nothing."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from fastvae.config import Config, ModelConfig
from fastvae.data.packed import PackedWriter

_SIZE = 32


def tiny_run(config: Config, folder: Path) -> Config:
    """The config with a net of a few channels, batches of 4, and 24 images of noise to train on.

    Args:
        config: of any recipe.
        folder: where the images are written.
    """
    path = folder / "noise.fvae"
    pixels = np.random.Generator(np.random.PCG64(0)).integers(0, 256, (28, _SIZE, _SIZE, 3), dtype=np.uint8)
    with PackedWriter(path, image_size=_SIZE) as writer:
        writer.append(pixels, splits=(np.arange(len(pixels)) >= 24).astype(np.uint8))
    objective = config.objective
    if hasattr(objective, "layers"):
        objective = replace(objective, vgg="random", layers=("relu1_1", "relu2_1"))
    return replace(
        config,
        objective=objective,
        data=str(path),
        model=ModelConfig(image_size=_SIZE, width=2, latent=4),
        train=replace(config.train, batch_size=4, precision="fp32", compile="off", held_out=4),
    )
