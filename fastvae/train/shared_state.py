"""Gives every rank the state that rank 0 has built or restored, and noise of its own."""

import json
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from fastvae.data.training_set import TrainingSet
from fastvae.distributed.ranks import Ranks
from fastvae.errors import FastvaeError
from fastvae.train import checkpoint
from fastvae.train.build import Training
from fastvae.train.noise_seed import noise_seed
from fastvae.train.snapshot import gather, gathered_bytes, views


def check_same_images(ranks: Ranks, images: TrainingSet) -> None:
    """Raises FastvaeError unless all ranks read the images of rank 0 in the same way."""
    own = json.dumps([images.kind, asdict(images.identity)])
    if (first := ranks.from_first(own)) != own:
        raise FastvaeError(
            f"this machine reads other images than rank 0, or reads them with another loader ({own} instead of "
            f"{first}): give all machines the same --data, and name the --loader"
        )


def check_same_loss_network(ranks: Ranks, digest: str | None) -> None:
    """Raises FastvaeError unless all ranks have the loss network of rank 0: another machine may have another file."""
    if ranks.from_first(digest or "") != (digest or ""):
        raise FastvaeError(
            "--vgg holds other loss network weights on this machine than on that of rank 0: give all machines the same"
        )


@dataclass(frozen=True)
class Restored:
    """Where rank 0 goes on.

    Attributes:
        step: steps done.
        seconds: of training until then.
        epoch: that the next step is in.
        images: of that epoch's order that were used.
        kl_warmup_steps: of `checkpoint.State`.
        evaluates_first: whether the evaluation after these steps is missing.
    """

    step: int
    seconds: float
    epoch: int
    images: int
    kl_warmup_steps: int | None
    evaluates_first: bool


def share(
    ranks: Ranks,
    restored: Restored | None,
    noises: list[Tensor],
    training: Training,
    *,
    seed: int,
) -> Restored | None:
    """Copies rank 0's networks, their average and its optimisers to all ranks, and each rank's noise to its generator.

    A rank whose noise was not saved, since the run had fewer of them, begins a stream of its own that follows from
    seed, rank and step.

    Args:
        ranks: of the run.
        restored: on rank 0, what it has restored; None for a new run.
        noises: on rank 0, the saved state of each rank's noise generator; none for a new run.
        training: networks, average, optimisers and this rank's noise generator, in place; rank 0's are right already.
        seed: of the run.

    Returns:
        `restored`, of rank 0.
    """
    if ranks.alone:
        return restored
    objective, updates, step, noise = training
    average = step.average
    state = checkpoint.tensors(objective, updates, noises, average) if ranks.first else {}
    state = {key: tensor.cpu().contiguous() for key, tensor in state.items()}
    what = {
        "restored": restored and vars(restored),
        "tensors": [[*key, list(t.shape), str(t.dtype).removeprefix("torch.")] for key, t in state.items()],
    }
    what = json.loads(ranks.from_first(json.dumps(what)))
    if not ranks.first:
        state = {
            (file, name): torch.empty(shape, dtype=getattr(torch, dtype))
            for file, name, shape, dtype in what["tensors"]
        }
    buffer = torch.zeros(gathered_bytes(state), dtype=torch.uint8)
    gather(state, buffer)
    ranks.broadcast_(buffer)
    restored = Restored(**what["restored"]) if what["restored"] else None
    if not ranks.first:
        state = {key: tensor.contiguous() for key, tensor in views(state, buffer).items()}
        checkpoint.load(objective, updates, state, average)
        _continue_noise(noise, checkpoint.noises_in(state), seed, ranks.rank, restored.step if restored else 0)
    return restored


def _continue_noise(noise: torch.Generator, saved: list[Tensor], seed: int, rank: int, step: int) -> None:
    # Of another kind of device it has another size.
    if rank < len(saved) and saved[rank].shape == noise.get_state().shape:
        noise.set_state(saved[rank].clone())  # a view into a buffer makes torch 2.13 crash
    else:
        noise.manual_seed(noise_seed(seed, rank, step))
