"""The trained VAE as its users meet it: encoder and decoder behind four verbs."""

import operator
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from fastvae.models.decoder import Decoder
from fastvae.models.encoder import Encoder
from fastvae.places import resolved

if TYPE_CHECKING:
    from fastvae.inference.accelerated import AcceleratedVAE
    from fastvae.inference.run_summary import RunSummary


class VAE(nn.Module):
    """Variational autoencoder of Hou et al., section 3.2.

    Args:
        image_size: height and width of the images in pixels, a multiple of 16.
        width: channels of the widest-resolution stage.
        latent: dimensions of z.

    Attributes:
        run: what is known of the training run that the weights come from, or None.

    Raises:
        ValueError: image_size is not a multiple of 16, or a number is not a whole one above 0.
    """

    run: "RunSummary | None" = None

    def __init__(self, image_size: int = 64, width: int = 32, latent: int = 100):
        super().__init__()
        for name, value in {"image_size": image_size, "width": width, "latent": latent}.items():
            if not (hasattr(value, "__index__") and operator.index(value) > 0):
                raise ValueError(f"VAE expects {name} as a whole number above 0; got {value!r}")
        self.image_size, self.width, self.latent = image_size, width, latent
        self.encoder = Encoder(image_size, width, latent)
        self.decoder = Decoder(image_size, width, latent)

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images [B, 3, H, W], floats in [-1, 1] -> mean and log-variance of q(z|x), each [B, latent].

        Raises:
            ValueError: the shape or the dtype is another one.
        """
        self._check(images)
        return self.encoder(images)

    def decode(self, z: Tensor) -> Tensor:
        """z [B, latent] -> images [B, 3, H, W] in [-1, 1].

        Raises:
            ValueError: the shape is another one.
        """
        if z.dim() != 2 or z.shape[1] != self.latent:
            raise ValueError(f"decode expects z of shape [B, {self.latent}]; got {list(z.shape)}")
        return self.decoder(z)

    def reconstruct(self, images: Tensor) -> Tensor:
        """Images [B, 3, H, W] in [-1, 1] -> decode(mean of q(z|x)), [B, 3, H, W] in [-1, 1]."""
        return self.decode(self.encode(images)[0])

    def sample(self, count: int, *, generator: torch.Generator | None = None) -> Tensor:
        """Images [count, 3, H, W] in [-1, 1], decoded from draws of the prior N(0, I).

        Args:
            count: how many, >= 0.
            generator: of the parameters' device; None for torch's global one.
        """
        if not (hasattr(count, "__index__") and operator.index(count) >= 0):
            raise ValueError(f"sample expects a number of images, 0 or more; got {count!r}")
        weight = self.decoder.linear.weight
        z = torch.randn(count, self.latent, generator=generator, device=weight.device, dtype=weight.dtype)
        return self.decode(z)

    def forward(self, images: Tensor) -> Tensor:
        """The same as `reconstruct`."""
        return self.reconstruct(images)

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
        from fastvae.inference.accelerated import accelerate  # downstream of the models, and only wanted here

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
        from fastvae.hub import folder as hub_folder  # downstream of the models, as all that follows

        hub_folder.write(self, folder, license=license)

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

        return upload(self, repo_id, license=license, **options)

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
        from fastvae.inference import load

        if options and not os.path.exists(resolved(path)):  # noqa: PTH110  (pathlib's own may raise)
            from fastvae.hub.download import fetch

            path = fetch(str(path), **options)
        return load(path, device=device)

    def _check(self, images: Tensor) -> None:
        size = self.image_size
        if images.dim() != 4 or tuple(images.shape[1:]) != (3, size, size):
            raise ValueError(f"expected images of shape [B, 3, {size}, {size}]; got {list(images.shape)}")
        if not images.is_floating_point():
            raise ValueError(
                f"expected floats in [-1, 1]; got {images.dtype}: for 8-bit pixels pass `images / 127.5 - 1`"
            )
