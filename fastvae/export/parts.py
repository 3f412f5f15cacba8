"""The parts that are exported, folded: encoder, decoder and both in one, with names for their inputs and outputs."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fastvae.inference.agreement import largest_error
from fastvae.inference.fold import FoldedDecoder, FoldedEncoder, FoldedReconstruction, require_finite
from fastvae.models import VAE

PARTS = ("encoder", "decoder", "reconstruct")
# Largest allowed error relative to the largest value; both sides are float32 and differ in the order of sums.
BOUND = 1e-4
# Batch sizes that are compared with the plain module: one image, the size used for the export, and another one.
CHECKED_BATCHES = (1, 2, 5)


@dataclass(frozen=True)
class Part:
    """One exported part.

    Attributes:
        name: one of `PARTS`.
        module: float32, in eval mode, made of torch's own operations.
        plain: computes the same with the VAE's methods, as a list of results.
        input: its name, "images" [B, 3, H, W] in [-1, 1] or "z" [B, latent].
        outputs: names of its results.
        shape: of one input, without the batch.
    """

    name: str
    module: nn.Module
    plain: Callable[[Tensor], list[Tensor]]
    input: str
    outputs: tuple[str, ...]
    shape: tuple[int, ...]

    def example(self, batch: int, device: torch.device | str = "cpu") -> Tensor:
        """Random inputs, the same for each batch size every time."""
        generator = torch.Generator().manual_seed(batch)
        if self.input == "z":
            return torch.randn(batch, *self.shape, generator=generator).to(device)
        return (torch.rand(batch, *self.shape, generator=generator) * 2 - 1).to(device)


def parts_of(vae: VAE, names: tuple[str, ...], device: torch.device | str = "cpu") -> list[Part]:
    """The named parts of a VAE.

    Raises:
        FastvaeError: a weight is not finite (the message names it).
    """
    vae = vae.to(device).eval()
    require_finite(vae, torch.float32)
    encoder, decoder = FoldedEncoder(vae).to(device), FoldedDecoder(vae).to(device)
    image, z = (3, vae.image_size, vae.image_size), (vae.latent,)
    both = FoldedReconstruction(encoder, decoder)
    made = {
        "encoder": Part("encoder", encoder, lambda x: list(vae.encode(x)), "images", ("mean", "log_variance"), image),
        "decoder": Part("decoder", decoder, lambda x: [vae.decode(x)], "z", ("images",), z),
        "reconstruct": Part("reconstruct", both, lambda x: [vae.reconstruct(x)], "images", ("reconstructions",), image),
    }
    return [made[name] for name in names]


def worst_error(part: Part, run: Callable[[Tensor], list[Tensor]], device: torch.device | str = "cpu") -> float:
    """`largest_error` of `run` against the plain module over the checked batches."""
    results, expected = [], []
    for batch in CHECKED_BATCHES:
        x = part.example(batch, device)
        with torch.no_grad():
            expected += part.plain(x)
        results += run(x)
    return largest_error(results, expected)
