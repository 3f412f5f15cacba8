"""The model of a run that draws images: a VAE, or the generator of a GAN."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from fastvae.errors import FastvaeError
from fastvae.files.places import resolved
from fastvae.hub.locate import GENERATOR, Weights, chosen_weights, filled, name_of, read_model, views_of, which_view
from fastvae.machine import usable_device
from fastvae.models import VAE
from fastvae.models.at_once import at_once
from fastvae.models.dcgan import DcganGenerator
from fastvae.pictures import finite_pixels
from fastvae.train import checkpoint_files
from fastvae.train.model_json import model_from_json
from fastvae.train.run_summary import RunSummary, of_checkpoint
from fastvae.vae import load_file


class Sampler(Protocol):
    """Draws images from the prior N(0, I)."""

    image_size: int
    latent: int
    run: RunSummary | None

    def sample(self, count: int, *, generator: torch.Generator | None = None) -> Tensor:
        """Images [count, 3, H, W] in [-1, 1]."""


class _Generator(DcganGenerator):
    """The generator of a GAN, with a summary of its training run."""

    run: RunSummary | None = None


def draw_samples(model: Sampler, count: int, seed: int) -> Iterator[np.ndarray]:
    """Images from the prior in batches, so that memory use does not depend on their number.

    All z are drawn at once on the CPU, as `model.sample(count)` does there, so the images do not depend on the batches,
    and models of one latent size get the same z.

    Args:
        model: decodes.
        count: number of images.
        seed: of z, 0 to 2^63 - 1.

    Yields:
        uint8 [B, H, W, 3], B at most `at_once`.
    """
    z = torch.randn(count, model.latent, generator=torch.Generator().manual_seed(seed))
    for batch in z.split(at_once(model.image_size)):
        yield decoded_pixels(model, batch)


def decoded_pixels(model: Sampler, z: Tensor) -> np.ndarray:
    """z [B, latent], on any device -> uint8 [B, H, W, 3].

    Raises:
        FastvaeError: the model's images are not finite.
    """
    decode = model.decode if isinstance(model, VAE) else model
    with torch.inference_mode():
        return finite_pixels(decode(z.to(next(model.parameters()))))


def load_sampler(path: str | Path, *, device: str = "cpu", weights: Weights = "auto") -> Sampler:
    """The `VAE` of a run, or the generator of a GAN's run, in eval mode. The arguments are those of `fastvae.load`.

    Raises:
        FastvaeError: as `fastvae.load`.
    """

    def read(file: Path, view: str | None) -> Sampler:
        generator = _generator_of(file, view, device, weights)
        return load_file(file, device=device, view=view, weights=weights) if generator is None else generator

    return read_model(path, read)


def _generator_of(file: Path, view: str | None, device: str, weights: Weights) -> _Generator | None:
    """A GAN's generator; None if the file is of VAEs."""
    names = checkpoint_files.tensor_shapes(file)
    if not any(name.startswith(GENERATOR) for name in names):
        return None
    if view is not None:
        raise FastvaeError(which_view(file, view, ()))
    metadata = checkpoint_files.read_metadata(file)
    model = model_from_json(metadata["config"])
    stored, which = chosen_weights(file, metadata, names, GENERATOR, weights)
    generator = filled(_Generator, model, file, f"{stored}{GENERATOR}", (f"{stored}{GENERATOR}",))
    generator.run = of_checkpoint(metadata, file, weights=which)
    return generator.to(usable_device(device)).eval()


def load_samplers(path: str | Path, *, device: str = "cpu", weights: Weights = "auto") -> dict[str, Sampler]:
    """The models of a run by name: the VAEs of `load_views`, or the generator of a GAN's run under the run's name.

    Raises:
        FastvaeError: as `fastvae.load`.
    """

    def read(file: Path, view: str | None) -> dict[str, Sampler]:
        if (generator := _generator_of(file, view, device, weights)) is not None:
            return {name_of(path): generator}
        return dict(_vaes_of(resolved(path), file, view, device=device, weights=weights))

    return read_model(path, read)


def load_views(path: str | Path, *, device: str = "cpu", weights: Weights = "auto") -> dict[str, VAE]:
    """The VAEs of a run by name: the run's name, or RUN/VIEW for each view of a multi-view run.

    Raises:
        FastvaeError: as `fastvae.load`.
    """
    return read_model(path, lambda file, view: _vaes_of(resolved(path), file, view, device=device, weights=weights))


def _vaes_of(path: Path, file: Path, view: str | None, **options: Any) -> dict[str, VAE]:
    views = views_of(checkpoint_files.read_metadata(file)) if view is None else ()
    if not views:
        name = f"{path.parent.name}/{view}" if view else path.name
        return {name: load_file(file, view=view, **options)}
    return {f"{path.name}/{view}": load_file(file, view=view, **options) for view in views}
