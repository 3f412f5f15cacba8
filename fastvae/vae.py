"""The public interface of a trained VAE: `fastvae.VAE` and `fastvae.load`."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from fastvae import models
from fastvae.errors import FastvaeError
from fastvae.files.places import resolved
from fastvae.hub import folder as saved_folder
from fastvae.hub.locate import GENERATOR, Weights, chosen_weights, filled, read_model, views_of, which_view
from fastvae.machine import usable_device
from fastvae.train import checkpoint_files
from fastvae.train.model_json import model_from_json
from fastvae.train.run_summary import RunSummary, of_checkpoint

if TYPE_CHECKING:
    from fastvae.inference.accelerated import AcceleratedVAE


class VAE(models.VAE):
    """Variational autoencoder of Hou et al., section 3.2, with methods to accelerate, save and share it.

    Args:
        image_size: height and width of the images in pixels: 4, 5, 6 or 7 times a power of two, from 8 to 1024.
        width: channels of the stage with the highest resolution.
        latent: dimensions of z.
        stages: how often encoder and decoder halve and double a map. None: as often as leaves one of 4x4 to 7x7, which
            is 3 at 32x32, 4 at 64x64 (the paper's), 5 at 128x128. With a number, the image size may be any that can be
            halved so often without remainder.

    Attributes:
        stages: their number, also if None was given.
        run: summary of the training run that the weights come from, or None.

    Raises:
        ValueError: image_size and stages do not fit together, or a number is not a positive integer.
    """

    run: RunSummary | None = None

    def accelerate(
        self,
        dtype: torch.dtype | None = None,
        batch_sizes: int | Sequence[int] = (1,),
        device: torch.device | str | None = None,
    ) -> "AcceleratedVAE":
        """A fast copy for inference only, with the same methods; later changes to this module do not affect it.

        It computes what this module computes in eval mode, with batch normalisations folded into the convolutions and
        each upsampling into one low-resolution convolution. On a GPU each method is one CUDA graph per batch size,
        which its first call compiles and captures (some seconds, logged to "fastvae"); `AcceleratedVAE.warm_up` does
        that ahead of time. On a CPU it runs in fastvae's C++ engine, which the machine's compiler builds for its
        processor at the first use (some seconds, logged too). The engine is kept in the cache, or, if nothing there may
        be executed, in a private folder in the system's temporary folder. If it cannot be compiled or loaded, a warning
        is logged once and torch's operations are used.

        Args:
            dtype: of weights and feature maps. None: float32 on a CPU; on a GPU bfloat16 if it supports that. float32
                is computed without TF32. bfloat16 halves what a CPU has to read, and processors with AVX512-BF16
                multiply it twice as fast; float16 on a CPU uses torch's operations, which is slower than float32.
            batch_sizes: of the calls to come, one or several. On a GPU each is captured; other batches are split, and
                padded up to the next of these sizes. On a CPU every batch runs as it is, and the smallest of these
                sizes decides how the convolutions are computed: eight images or more share larger, transformed filters.
            device: a CPU or CUDA device; None for the device of the weights.

        Returns:
            An `AcceleratedVAE`. Its results agree with this module's to 1e-5 of the largest value in float32, to 0.05
            in bfloat16 and float16.

        Raises:
            FastvaeError: an argument is not one of those above, there is no such device, or a weight is NaN or infinite
                (the message names it).
        """
        from fastvae.inference.accelerated import accelerate  # imported late, since it imports every backend

        return accelerate(self, dtype, batch_sizes, device)

    def save_pretrained(self, folder: str | Path, *, license: str | None = None) -> None:
        """Writes a folder that `fastvae.load` and `from_pretrained` read: safetensors, config, model card, image.

        The model card describes the run that the weights come from: data, schedule, losses, reconstructions. An
        existing README.md is kept.

        Args:
            folder: created if needed; "~" is expanded. A VAE saved in it before is replaced; other files are kept.
            license: of the weights, for the card, as the Hub spells it ("cc-by-4.0"); None to omit it.

        Raises:
            FastvaeError: the folder holds another model or a run's files, or cannot be written.
        """
        saved_folder.write(self, folder, run=self.run, license=license)

    def push_to_hub(self, repo_id: str, *, license: str | None = None, **options) -> str:
        """Uploads what `save_pretrained` writes to the Hugging Face Hub; needs `pip install -e '.[hub]'`.

        Args:
            repo_id: "user/name"; the repository is created if needed.
            license: as in `save_pretrained`.
            options: of `huggingface_hub.ModelHubMixin.push_to_hub`, such as private, token, commit_message.

        Returns:
            Where it was uploaded to, as huggingface_hub returns it.

        Raises:
            FastvaeError: huggingface_hub is not installed, or the upload fails.
        """
        from fastvae.hub.upload import upload

        return upload(self, repo_id, run=self.run, license=license, **options)

    @classmethod
    def from_pretrained(cls, path: str | Path, *, device: str = "cpu", weights: Weights = "auto", **options) -> "VAE":
        """Loads a VAE in eval mode, as `fastvae.load` does, with options for a repository on the Hub.

        Args:
            path, device, weights: as for `fastvae.load`.
            options: for a repository, of `huggingface_hub.snapshot_download`, such as revision, token, cache_dir,
                local_files_only.

        Raises:
            FastvaeError: as `fastvae.load`.
        """
        if options and not os.path.exists(resolved(path)):  # noqa: PTH110  (pathlib's may raise)
            from fastvae.hub.download import fetch

            path = fetch(str(path), **options)
        return load(path, device=device, weights=weights)


def load(path: str | Path, *, device: str = "cpu", weights: Weights = "auto") -> VAE:
    """Loads a trained VAE, in eval mode, float32.

    Args:
        path: a run's folder (its newest checkpoint), the folder of a checkpoint, a folder that `VAE.save_pretrained`
            wrote, or a model.safetensors. If there is no such path and it has the form "user/name": that repository on
            the Hugging Face Hub. A view of a multi-view run is RUN/relu1_1 and so on.
        device: a torch device.
        weights: of a run with `--ema`: "ema", the moving average of its weights; "raw", those of the last step; "auto",
            the average if there is one, which is logged to "fastvae".

    Returns:
        A `VAE`, whose `run` describes its training. Nothing is unpickled.

    Raises:
        FastvaeError: there is no checkpoint, it is damaged or of another version, it holds no VAE or several, it does
            not hold these weights, or the repository cannot be downloaded.
    """
    return read_model(path, lambda file, view: load_file(file, device=device, view=view, weights=weights))


def load_file(file: Path, *, device: str = "cpu", view: str | None = None, weights: Weights = "auto") -> VAE:
    """`load` for a model.safetensors of fastvae; `view` names one of several."""
    metadata = checkpoint_files.read_metadata(file)
    model = model_from_json(metadata["config"])
    views = views_of(metadata)
    if (view is None) != (not views) or (view is not None and view not in views):
        raise FastvaeError(which_view(file, view, views))
    names = checkpoint_files.tensor_shapes(file)
    if any(name.startswith(GENERATOR) for name in names):
        raise FastvaeError(
            f"expected a VAE; {file} is a GAN, which has no encoder: `fastvae generate`, `fastvae figures samples` and "
            "`fastvae evaluate` accept its run"
        )
    prefix = f"{view}." if view else ""
    prefixes = f"{prefix}encoder.", f"{prefix}decoder."
    if not any(name.startswith(prefixes) for name in names):
        raise FastvaeError(f"{file} holds no VAE: did that run train another kind of network?")
    stored, which = chosen_weights(file, metadata, names, prefixes[1], weights)
    vae = filled(VAE, model, file, f"{stored}{prefix}", tuple(f"{stored}{name}" for name in prefixes))
    vae.run = of_checkpoint(metadata, file, view, which)
    return vae.to(usable_device(device)).eval()
