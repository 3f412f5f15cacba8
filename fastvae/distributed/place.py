"""Which of the processes that torchrun started this one is, from its environment."""

import os
from collections.abc import Mapping
from dataclasses import dataclass

from fastvae.errors import UsageError


@dataclass(frozen=True)
class Place:
    """This process among those of a run.

    Attributes:
        rank: number of this process, 0 to size - 1.
        size: number of processes on all machines.
        local_rank: number of this process on its machine, from 0; it trains on the GPU of that number.
        local_size: number of processes on its machine.
        restarts: how often torchrun has started the processes again.
        max_restarts: how often it would.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    restarts: int = 0
    max_restarts: int = 0


def place(environment: Mapping[str, str] = os.environ) -> Place:
    """This process's place; without torchrun, that of the only one.

    Raises:
        UsageError: the variables are incomplete or contradict each other.
    """
    if "WORLD_SIZE" not in environment:
        return Place()
    size = _number(environment, "WORLD_SIZE")
    rank = _number(environment, "RANK")
    local_rank = _number(environment, "LOCAL_RANK")
    local_size = _number(environment, "LOCAL_WORLD_SIZE", size)
    if not 0 <= rank < size or not 0 <= local_rank < local_size <= size:
        raise UsageError(
            f"expected RANK below WORLD_SIZE and LOCAL_RANK below LOCAL_WORLD_SIZE, as torchrun sets them; got RANK "
            f"{rank} of {size} and LOCAL_RANK {local_rank} of {local_size}"
        )
    if size > 1:
        for name in ("MASTER_ADDR", "MASTER_PORT"):
            if not environment.get(name):
                raise UsageError(f"{_INCOMPLETE}, {name} is missing: start it with torchrun, or unset WORLD_SIZE")
    return Place(
        rank,
        size,
        local_rank,
        local_size,
        _number(environment, "TORCHELASTIC_RESTART_COUNT", 0),
        _number(environment, "TORCHELASTIC_MAX_RESTARTS", 0),
    )


_INCOMPLETE = "WORLD_SIZE is set, as for one of several processes, but of what else torchrun sets"


def _number(environment: Mapping[str, str], name: str, default: int | None = None) -> int:
    text = environment.get(name)
    if text is None and default is not None:
        return default
    if text is None:
        raise UsageError(f"{_INCOMPLETE}, {name} is missing: start it with torchrun, or unset WORLD_SIZE")
    if not (text.isascii() and text.isdigit()):
        raise UsageError(f"expected a number in the environment variable {name}; got {text!r}")
    return int(text)
