"""`fastvae encode RUN DATA`: the latent vectors of all images of a data set."""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from fastvae.cli.parsing import RunName, Weights, parse
from fastvae.errors import FastvaeError, UsageError
from fastvae.files.places import is_file, resolved, shown

if TYPE_CHECKING:
    from fastvae.encode.images import Images
    from fastvae.encode.parts import Parts
    from fastvae.encode.request import Request

_Data = Annotated[str, tyro.conf.arg(metavar="DATA")]
_ENDING = ".safetensors"


@dataclass(frozen=True)
class _Command:
    """Writes the mean of q(z|x) of each image, with the images' names, as a safetensors file.

    Whatever interrupts it, the same command goes on with what is there. Images that cannot be read are left out,
    counted and named.
    """

    run: tyro.conf.Positional[RunName]  # a run folder, one of its checkpoints, a model.safetensors, or user/name
    # whatever `fastvae prepare` reads, cropped and resized as there; a file of `fastvae prepare`; or faces
    data: tyro.conf.Positional[_Data]
    out: Path = Path("latents.safetensors")  # file to write
    weights: Weights = "auto"  # of a run with --ema: the average, or those of the last step; auto: the average
    split: Literal["all", "train", "validation", "test"] = "all"  # which images
    log_variances: bool = False  # also write the log-variances of q(z|x)
    device: Literal["auto", "cpu", "cuda"] = "auto"  # auto: CUDA if available
    overwrite: bool = False  # replace the file, and what is left of an interrupted command, if made from something else


def run(argv: list[str]) -> int:
    """Parses the flags and encodes; finished images are always kept.

    Raises:
        FastvaeError: the run or the data cannot be read, the file holds something else, or cannot be written.
    """
    command = parse(_Command, prog="fastvae encode", args=argv)
    import torch

    from fastvae import load
    from fastvae.encode import latents_file
    from fastvae.encode.encode import batch_size, encode
    from fastvae.encode.images import open_all
    from fastvae.encode.parts import Parts
    from fastvae.encode.request import Request
    from fastvae.files.atomic_write import check_writable
    from fastvae.files.tensor_file import digest_of
    from fastvae.machine import choose_device

    check_writable(command.out)
    if command.out.suffix.lower() != _ENDING:
        raise UsageError(f"--out must end in {_ENDING}; got {command.out}")
    device = choose_device(command.device)
    vae = load(command.run, weights=command.weights)
    images = open_all(command.data, vae.image_size)
    indices = images.of_split(command.split)
    weights = digest_of(vae.encoder.state_dict())
    request = Request(weights, images.digest, command.split, command.log_variances)
    if os.path.lexists(command.out) and _is_done(command, request):
        with suppress(FastvaeError), Parts(command.out, request, overwrite=False) as parts:
            parts.remove()  # which a process left that was killed at the very end
        print(f"{command.out} is complete: {len(indices)} images were asked for, and nothing has changed")
        return 0
    fast = vae.accelerate(torch.float32, batch_sizes=(batch_size(vae.image_size),), device=device)
    with Parts(command.out, request, overwrite=command.overwrite) as parts:
        with _goes_on(parts, len(indices)):
            encode(fast, images, indices, parts, log_variances=command.log_variances)
            skipped = _skipped(images, parts.skipped())
            if len(skipped) < len(indices):
                metadata = request.as_metadata() | _origin(command, vae.image_size, skipped)
                latents_file.write(
                    command.out, parts, latent=vae.latent, names=images.names, splits=images.splits, metadata=metadata
                )
        parts.remove()
    if len(skipped) == len(indices):
        raise FastvaeError(f"none of the {len(indices)} images of {images.place} can be read: {skipped[0]}")
    _report(command, len(indices), vae.latent, skipped)
    return 0


def _is_done(command: _Command, request: "Request") -> bool:
    """Whether the file that exists is the one that is asked for; if not, it may be replaced.

    Raises:
        UsageError: it holds something else and is not to be replaced.
    """
    from fastvae.cli.targets import check_not_read, places
    from fastvae.encode.request import metadata_of

    if (difference := request.difference(metadata_of(command.out) or {})) is None:
        return True
    if not command.overwrite:
        raise UsageError(f"{command.out} holds {difference}: choose another --out, or give --overwrite to replace it")
    given = resolved(command.run)
    check_not_read(command.out, [*places(command.data), *([given] if is_file(given) else [])])
    return False


@contextmanager
def _goes_on(parts: "Parts", total: int) -> Iterator[None]:
    """Whatever ends the block before its end, says what is kept."""

    def kept() -> str:
        return f"{parts.done} of {total} images are done and kept; the same command goes on from there"

    try:
        yield
    except FastvaeError as error:
        raise FastvaeError(f"{error}. {kept()}") from error
    except BaseException:
        print(kept(), file=sys.stderr)
        raise


def _skipped(images: "Images", reasons: dict[int, str]) -> list[str]:
    """A line for each image that was left out."""
    return [f"{shown(images.names[index])}: {reason}" for index, reason in sorted(reasons.items())]


def _origin(command: _Command, image_size: int, skipped: list[str]) -> dict[str, str]:
    """Where the latent vectors came from, for readers of the file."""
    from fastvae.data.loaders.broken import NAMED
    from fastvae.hub.locate import name_of
    from fastvae.version import __version__

    return {
        "model": shown(name_of(command.run)),
        # Only the name: a file that is passed on should not reveal its author's folders.
        "data": shown(resolved(command.data).name),
        "image_size": str(image_size),
        "skipped": json.dumps({"count": len(skipped), "first": skipped[:NAMED]}),
        "fastvae": __version__,
    }


def _report(command: _Command, count: int, latent: int, skipped: list[str]) -> None:
    from fastvae.data.loaders.broken import NAMED

    for line in skipped[:NAMED]:
        print(f"skipped {line}", file=sys.stderr)
    if len(skipped) > NAMED:
        print(f"and {len(skipped) - NAMED} more", file=sys.stderr)
    left_out = f", {len(skipped)} skipped" if skipped else ""
    kept = "means and log-variances" if command.log_variances else "means"
    print(f"{count - len(skipped)} images{left_out}: {kept} [{count - len(skipped)}, {latent}] in {command.out}")
