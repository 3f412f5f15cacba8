"""When a run's state is copied to the host, and who writes it: checkpoints, and copies for the case of a lost rank."""

import threading
from collections.abc import Callable

import torch
from torch import Tensor

from fastvae.config import Config
from fastvae.distributed.ranks import Ranks
from fastvae.train import checkpoint
from fastvae.train.checkpoint_writer import CheckpointWriter
from fastvae.train.config_json import to_json
from fastvae.train.kept_state import KeptState
from fastvae.train.late_work import LateWork
from fastvae.train.run_folder import RunFolder
from fastvae.train.shared_state import Restored
from fastvae.train.snapshot import Snapshot, Snapshots
from fastvae.train.unwritten_run import UnwrittenRun

# For a checkpoint that is being written when a rank is lost; on a GPU that hangs it may never be.
_WRITES_S = 10.0


class Saver:
    """Saves the state of a run. All ranks take part, rank 0 writes.

    Args:
        run: the folder.
        config: of the run.
        ranks: that train it.
        late: the host's work that comes a window later; losses up to a checkpoint are logged before it is written.
        current: what a checkpoint holds now, on all ranks.
        device: of the tensors.
        restored: where the run goes on; None for a new one.

    Attributes:
        step: of the newest checkpoint, or None.
        at: seconds of training then.
    """

    def __init__(
        self,
        run: RunFolder | UnwrittenRun,
        config: Config,
        ranks: Ranks,
        late: LateWork,
        current: Callable[[], tuple[checkpoint.State, dict[tuple[str, str], Tensor]]],
        *,
        device: torch.device,
        restored: Restored | None,
    ):
        self.step = None if restored is None else restored.step
        self.at = 0.0 if restored is None else restored.seconds
        self._run, self._config, self._count = run, to_json(config), config.train.keep_checkpoints
        self._ranks, self._late, self._current = ranks, late, current
        self._snapshots, self._writer = Snapshots(device), CheckpointWriter()
        self._snapshot_waits = False
        self._kept, self._saving_kept = KeptState(device), threading.Lock()

    def save(self) -> None:
        """Copies the state to the host; a thread writes it, once the losses of all steps until then are logged."""
        if self._snapshot_waits:
            self._late.flush()
        self._writer.wait()
        state, tensors = self._current()
        self.at = state.seconds
        if not self._ranks.first:
            self.step = state.step
            return
        snapshot = self._snapshots.take(tensors)
        self._snapshot_waits = True

        def start() -> None:
            self._snapshot_waits = False
            self._writer.start(lambda: self._write(state, snapshot))

        self._late.add(start)

    def check(self) -> None:
        """Raises what a write has raised, without waiting for one that is running."""
        self._writer.check()

    def finish(self) -> None:
        """Waits for the device, and for what is being written; raises what it raises."""
        self._late.flush()
        self._writer.wait()

    def settle(self) -> BaseException | None:
        """Waits for what is being written; what it raised, or None."""
        return self._writer.settle()

    @property
    def keeps_now(self) -> bool:
        """Whether the newest copy for the case of a lost rank is old enough for another."""
        return self._kept.is_due

    def keep(self) -> None:
        """Makes a copy for the case of a lost rank."""
        self._kept.keep(*self._current())

    def save_kept(self) -> str:
        """Saves the newest such copy; see `KeptState.save`. Two threads may ask: the training's and the watch."""
        with self._saving_kept:
            self._writer.settle(_WRITES_S)
            return self._kept.save(self._run, self._config, keep=self._count)

    def _write(self, state: checkpoint.State, snapshot: Snapshot) -> None:
        checkpoint.save(self._run.checkpoints, state, snapshot.read(), config=self._config, keep=self._count)
        self.step = state.step
