"""Gives every rank the state that rank 0 has built or restored, and noise of its own."""

import json
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor

from fastvae.data.training_set import TrainingSet
from fastvae.distributed.ranks import Ranks
from fastvae.errors import FastvaeError
from fastvae.objectives import Objective, Update
from fastvae.train import checkpoint
from fastvae.train.snapshot import gather, gathered_bytes, views
from fastvae.train.weight_average import WeightAverage


def noise_seed(seed: int, rank: int, step: int = 0) -> int:
    """Of a rank's noise generator from a step on: for rank 0 at step 0 the run's own seed, else a hash of all three."""
    if rank == 0 and step == 0:
        return seed
    return int(np.random.SeedSequence(seed, spawn_key=(rank, step)).generate_state(1, np.uint64)[0] >> np.uint64(1))


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
        epoch: that the next step is in.
        images: of that epoch's order that were used.
        kl_warmup_steps: of `checkpoint.State`.
        seconds: of training until then; another rank saves them if rank 0 is lost.
    """

    step: int
    epoch: int
    images: int
    kl_warmup_steps: int | None
    seconds: float = 0.0


def share(
    ranks: Ranks,
    restored: Restored | None,
    noises: list[Tensor],
    *,
    objective: Objective,
    updates: dict[str, Update],
    noise: torch.Generator,
    average: WeightAverage | None,
    seed: int,
) -> Restored | None:
    """Copies rank 0's networks, their average and its optimisers to all ranks, and each rank's noise to its generator.

    A rank whose noise was not saved, since the run had fewer of them, begins a stream of its own that follows from
    seed, rank and step.

    Args:
        ranks: of the run.
        restored: on rank 0, what it has restored; None for a new run.
        noises: on rank 0, the saved state of each rank's noise generator; none for a new run.
        objective: in place.
        updates: in place.
        noise: this rank's generator; rank 0's is as it should be.
        average: of the weights, in place; None if the run has none.
        seed: of the run.

    Returns:
        `restored`, of rank 0.
    """
    if ranks.alone:
        return restored
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
