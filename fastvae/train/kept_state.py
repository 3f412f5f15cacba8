"""A copy of the training's state on the host, for the case that a rank is lost and the device cannot be asked."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastvae.errors import FastvaeError
from fastvae.train import checkpoint, checkpoint_files
from fastvae.train.checkpoint import State
from fastvae.train.run_folder import RunFolder
from fastvae.train.snapshot import Snapshot, Snapshots
from fastvae.train.unwritten_run import UnwrittenRun

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
        for _, snapshot in self._kept:
            _ = snapshot.has_arrived  # noted while the device answers, which it does not after a failure
        self._places.reverse()
        self._kept = [*self._kept, (state, self._places[0].take(tensors))]
        self._at = time.monotonic()

    def save(self, run: RunFolder | UnwrittenRun, config: dict[str, Any], *, keep: int) -> str:
        """Saves the newest copy that has arrived, unless a newer one is saved; any rank can, where the folder is.

        Args:
            run: of this rank.
            config: `to_json` of the run's config.
            keep: as for `checkpoint.save`.

        Returns:
            What is saved now and how to go on, as a sentence.
        """
        go_on = checkpoint_files.resume_command(run.path)
        if not (run.path / "config.json").is_file():
            return f". Continue from the newest checkpoint, on the machine of rank 0, with: {go_on}"
        try:
            if isinstance(run, UnwrittenRun):  # rank 0 is lost, and its lock, too, if its process has ended
                RunFolder(run.path).hold()
            step = self._save(run.checkpoints, config, keep)
        except checkpoint.NotSaved as error:  # says itself how to go on
            return f". {error}"
        except FastvaeError as error:
            return f". {error}. Then continue from the newest checkpoint with: {go_on}"
        if not step:
            return f". No step is saved; start again with: {go_on}"
        return f". The first {step} steps are saved; continue with: {go_on}"

    def _save(self, folder: Path, config: dict[str, Any], keep: int) -> int:
        """The step of the newest checkpoint then."""
        saved = checkpoint_files.checkpoints(folder)
        newest = checkpoint_files.step_of(saved[-1]) if saved else 0
        for state, snapshot in reversed(self._kept):
            if state.step > newest and snapshot.has_arrived:
                checkpoint.save(folder, state, snapshot.read(), config=config, keep=keep)
                return state.step
        return newest
