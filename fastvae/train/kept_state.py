"""A copy of the training's state on the host, for the case that a rank is lost and the device cannot be asked."""

import time
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from fastvae.train.checkpoint import State
from fastvae.train.snapshot import Snapshot, Snapshots

# Seconds between copies; on a CPU, where they cost little beside a step, one at every log line.
_EVERY_S = {"cuda": 10.0, "cpu": 0.0}


class KeptState:
    """Keeps the newest two copies: the newer one may still be on its way when a GPU stops answering.

    Args:
        device: of the tensors.
    """

    def __init__(self, device: torch.device):
        self._every = _EVERY_S[device.type]
        self._places = [Snapshots(device), Snapshots(device)]
        self._kept: list[tuple[State, Snapshot]] = []
        self._at = time.monotonic()

    @property
    def is_due(self) -> bool:
        """Whether the last copy is old enough."""
        return time.monotonic() - self._at >= self._every

    def keep(self, state: State, tensors: Mapping[tuple[str, str], Tensor]) -> None:
        """Copies a state, without waiting for the device."""
        self._kept = self._kept[-1:]  # the other's place is overwritten
        self._places.reverse()
        self._kept = [*self._kept, (state, self._places[0].take(tensors))]
        self._at = time.monotonic()

    def write(self, after: int, save: Callable[[State, dict[tuple[str, str], Tensor]], None]) -> int:
        """Saves the newest copy that has arrived, if it is of a later step than `after`.

        Returns:
            The step of what is saved now, `after` if that is the newest.
        """
        for state, snapshot in reversed(self._kept):
            if state.step > after and snapshot.has_arrived:
                save(state, snapshot.read())
                return state.step
        return after
