"""The trained VAE as its users meet it: `fastvae.VAE` and `fastvae.load`."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from fastvae import models
from fastvae.errors import FastvaeError
from fastvae.files.places import resolved
from fastvae.hub import folder as saved_folder
from fastvae.hub.locate import GENERATOR, filled, read_model, views_of, which_view
from fastvae.machine import usable_device
from fastvae.train import checkpoint_files
from fastvae.train.config_json import model_from_json
from fastvae.train.run_summary import RunSummary, of_checkpoint

if TYPE_CHECKING:
    from fastvae.inference.accelerated import AcceleratedVAE


class VAE(models.VAE):
    """Variational autoencoder of Hou et al., section 3.2, that can be made fast, saved, and shared.

    Args:
        image_size: height and width of the images in pixels, a multiple of 16.
        width: channels of the widest-resolution stage.
        latent: dimensions of z.

    Attributes:
        run: what is known of the training run that the weights come from, or None.

    Raises:
        ValueError: image_size is not a multiple of 16, or a number is not a whole one above 0.
    """

    run: RunSummary | None = None

    def accelerate(
        self,
        dtype: torch.dtype | None = None,
        batch_sizes: Sequence[int] = (1,),
        device: torch.device | str | None = None,
    ) -> "AcceleratedVAE":
        """A copy for inference alone, with the same verbs, made fast; later changes to this module do not reach it.

        It computes what eval mode computes: batch normalisations are folded into the convolutions, upsampling into one
        low-resolution convolution. On a GPU each verb is one CUDA graph per batch size. On a CPU it runs in C++ of
        fastvae's own, which the machine's compiler makes for its processor at the first use (some seconds, told to the
        logger "fastvae") and which is kept in the cache, or where nothing of that may be run in a private folder in the
        system's temporary one; where it cannot be compiled or loaded, one warning, and torch's operations.

        Args:
            dtype: of weights and maps. None for float32 on a CPU; on a GPU for bfloat16 where it has that. On a CPU
                half precision runs in torch's operations, and is slower than float32 on most.
            batch_sizes: what to capture for on a GPU, where other batches go through in pieces, padded up to the next
                of these. On a CPU every batch size is run as it comes.
            device: a CPU or CUDA device; None for where the weights are.

        Returns:
            An `AcceleratedVAE`. Its results agree with this module's to 1e-5 of the largest value in float32, to 0.05
            in bfloat16 and float16.

        Raises:
            FastvaeError: an argument is not one of those above, there is no such device, or a weight is NaN or infinite
                (names it).
        """
        from fastvae.inference.accelerated import accelerate  # with all its ways to compute: only for those who ask

        return accelerate(self, dtype, batch_sizes, device)

    def save_pretrained(self, folder: str | Path, *, license: str | None = None) -> None:
        """Writes a folder that `fastvae.load` and `from_pretrained` read: safetensors, config, model card, picture.

        The card is written from the run that the weights come from: data, schedule, losses, reconstructions. A
        README.md that is there already stays.

        Args:
            folder: made where needed; "~" is expanded. An earlier saved VAE in it is replaced, and nothing else.
            license: of the weights, for the card, as the Hub spells it ("cc-by-4.0"); None says nothing.

        Raises:
            FastvaeError: the folder holds another model or a run's files, or it cannot be written.
        """
        saved_folder.write(self, folder, run=self.run, license=license)

    def push_to_hub(self, repo_id: str, *, license: str | None = None, **options) -> str:
        """Uploads what `save_pretrained` writes to the Hugging Face Hub; needs `pip install 'fastvae[hub]'`.

        Args:
            repo_id: "user/name"; the repository is made where needed.
            license: as in `save_pretrained`.
            options: of `huggingface_hub.ModelHubMixin.push_to_hub`, such as private, token, commit_message.

        Returns:
            Where it is now.

        Raises:
            FastvaeError: huggingface_hub is not installed, or the Hub refuses.
        """
        from fastvae.hub.upload import upload

        return upload(self, repo_id, run=self.run, license=license, **options)

    @classmethod
    def from_pretrained(cls, path: str | Path, *, device: str = "cpu", **options) -> "VAE":
        """A saved VAE, in eval mode: what `fastvae.load` takes, or a repository on the Hub.

        Args:
            path: as `fastvae.load` takes it.
            device: as torch spells devices.
            options: for a repository, of `huggingface_hub.snapshot_download`, such as revision, token, cache_dir,
                local_files_only.

        Raises:
            FastvaeError: as `fastvae.load`.
        """
        if options and not os.path.exists(resolved(path)):  # noqa: PTH110  (pathlib's own may raise)
            from fastvae.hub.download import fetch

            path = fetch(str(path), **options)
        return load(path, device=device)


def load(path: str | Path, *, device: str = "cpu") -> VAE:
    """A trained VAE, in eval mode, float32.

    Args:
        path: a run folder (its newest checkpoint), one checkpoint's folder, a folder that `VAE.save_pretrained` wrote,
            or a model.safetensors. If there is no such path and it has the form "user/name", that repository on the
            Hugging Face Hub. A view of a multi-view run is RUN/relu1_1, and so on.
        device: where to put it, as torch spells devices.

    Returns:
        A `VAE`, whose methods state shapes and ranges. Nothing is unpickled. Its `run` says what it was trained on.

    Raises:
        FastvaeError: there is no checkpoint, it is damaged, of another version, or it holds no VAE or several; or the
            repository cannot be had.
    """
    return read_model(path, lambda file, view: load_file(file, device=device, view=view))


def load_file(file: Path, *, device: str = "cpu", view: str | None = None) -> VAE:
    """The same from a model.safetensors of ours, or one view of several."""
    metadata = checkpoint_files.read_metadata(file)
    model = model_from_json(metadata["config"])
    views = views_of(metadata)
    if (view is None) != (not views) or (view is not None and view not in views):
        raise FastvaeError(which_view(file, view, views))
    names = checkpoint_files.tensor_shapes(file)
    if any(name.startswith(GENERATOR) for name in names):
        raise FastvaeError(
            f"{file} is a GAN's, which has no encoder: `fastvae generate`, `fastvae figures samples` and `fastvae "
            "evaluate` take its run, and what encodes or reconstructs cannot"
        )
    prefix = f"{view}." if view else ""
    prefixes = f"{prefix}encoder.", f"{prefix}decoder."
    if not any(name.startswith(prefixes) for name in names):
        raise FastvaeError(f"{file} holds no VAE: was another kind of network trained in that run?")
    vae = filled(VAE, model, file, prefix, prefixes)
    vae.run = of_checkpoint(metadata, file, view)
    return vae.to(usable_device(device)).eval()
