"""The folder of a run: config, environment, statistics, image grids, checkpoints."""

import contextlib
import itertools
import json
import logging
import math
import os
import platform
import sys
import threading
import time
from pathlib import Path
from typing import Any

from fastvae.errors import FastvaeError, UsageError
from fastvae.files import locks, reading
from fastvae.files.atomic_write import atomic_file, remove_abandoned, write_json
from fastvae.files.places import is_file, is_folder
from fastvae.kernels import conv_relu_forms
from fastvae.machine import environment
from fastvae.train.checkpoint_files import resume_command

# Locked by the process that writes into the folder; names that process.
_LOCK = ".lock"
_STATS = "stats.jsonl"
_ADVICE = "free some space or check the permissions, then continue with --resume"
_ADVICE_FOR_NEW = "free some space, check the permissions, or choose another --out"
_logger = logging.getLogger("fastvae")


class RunFolder:
    """Writes a run's files; errors such as a full disk become a FastvaeError.

    config.json       the resolved config
    environment.json  versions, processor, threads, GPU, the command; once it is known, which form each `conv_relu` has
                      there; each command that went on with the run, and after which step
    stats.jsonl       one JSON object per line: losses, speed, evaluations
    pictures/         image grids
    checkpoints/      see `checkpoint_files`
    tensorboard/      the same numbers as events, if TensorBoard is installed
    """

    def __init__(self, path: Path):
        self.path = path
        self.checkpoints, self.pictures = path / "checkpoints", path / "pictures"
        self._events = None
        self._lock: int | None = None

    def create(self, config: dict[str, Any]) -> None:
        """Creates and locks the folder, and writes config.json and environment.json.

        Raises:
            UsageError: the folder exists and is not empty.
            FastvaeError: it cannot be written, or another process holds its lock.
        """
        self.check_unused()
        with self.writing(_ADVICE_FOR_NEW):
            self.path.mkdir(parents=True, exist_ok=True)
        self.hold(_ADVICE_FOR_NEW)
        try:
            self.check_unused()  # again: another process may have created it meanwhile
            self._write_json("config.json", config, _ADVICE_FOR_NEW)
            self._write_json("environment.json", {**environment(), "command": sys.argv}, _ADVICE_FOR_NEW)
        except BaseException:
            self.close()
            raise

    def hold(self, advice: str = _ADVICE) -> None:
        """Locks the folder against other processes that would write into it, until `close` or the process ends.

        Raises:
            FastvaeError: another process holds the lock, or one of the run's paths is of the wrong kind.
        """
        self._check_kinds()
        path = self.path / _LOCK
        with self.writing(advice):
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        if not locks.try_lock(descriptor):
            with os.fdopen(descriptor, "rb") as file:
                holder = file.read(1000).decode("utf-8", "replace").strip() or "another process"
            raise FastvaeError(
                f"{self.path} is being written by {holder}: wait until that run ends, or stop it (it saves its state)"
            )
        self._lock = descriptor
        with self.writing(advice):
            os.ftruncate(descriptor, 0)
            since = time.strftime("%Y-%m-%d %H:%M:%S")
            os.write(descriptor, f"process {os.getpid()} on {platform.node()} since {since}\n".encode())
        remove_abandoned(self.path)
        remove_abandoned(self.pictures)

    def update_config(self, config: dict[str, Any]) -> None:
        """Writes the config of a resumed run, so that the next resume uses its flags."""
        self._write_json("config.json", config)

    def note_choices(self) -> None:
        """Adds to environment.json what this process has chosen by trial since it started, if it has."""
        if chosen := conv_relu_forms.choices():
            self._write_json("environment.json", {**self._environment(), "conv_relu": chosen})

    def note_resumed(self, step: int) -> None:
        """Adds to environment.json the command of this process, which goes on after so many steps."""
        known = self._environment()
        before = known.get("resumed")
        resumed = [*(before if isinstance(before, list) else ()), {"step": step, "command": sys.argv}]
        self._write_json("environment.json", {**known, "resumed": resumed})

    def _environment(self) -> dict[str, Any]:
        try:
            return dict(reading.read_json(self.path / "environment.json"))
        except (FastvaeError, TypeError, ValueError):  # lost or damaged: no reason to stop a training
            return environment()

    def read_config(self) -> Any:
        """The contents of config.json.

        Raises:
            FastvaeError: it is missing or damaged.
        """
        try:
            return reading.read_json(self.path / "config.json")
        except FastvaeError as error:
            raise FastvaeError(f"{error}: is {self.path} the folder of a run?") from error

    def forget_after(self, step: int) -> bool:
        """Removes from stats.jsonl what a run resumed from this step will write again, and damaged lines.

        That is every line of a later step, and the evaluation at this step, which may be incomplete.

        Returns:
            Whether there was an evaluation at this step.
        """
        evaluated = False
        path = self.path / _STATS
        if path.is_file():
            with atomic_file(path, advice=_ADVICE) as temporary, temporary.open("w") as file:
                for line in reading.read_json_lines(path):
                    if not isinstance(at := line.get("step"), int) or at > step:
                        continue
                    if at == step and any(key.startswith("held_out_") for key in line):
                        evaluated = True
                    else:
                        file.write(json.dumps(line) + "\n")
        return evaluated

    def set_stats_aside(self) -> None:
        """Starts a new stats.jsonl; an old one with logged steps is kept under another name."""
        path = self.path / _STATS
        if not any(isinstance(line.get("step"), int) and line["step"] > 0 for line in reading.read_json_lines(path)):
            self.forget_after(-1)
            return
        names = (self.path / f"stats-before-{number}.jsonl" for number in itertools.count(1))
        aside = next(name for name in names if not os.path.lexists(name))
        with self.writing():
            path.rename(aside)
        _logger.warning(
            "%s has no checkpoint and starts again from step 0; its logged steps are kept in %s", self.path, aside.name
        )

    def append(self, stats: dict[str, Any]) -> None:
        """Appends a line to stats.jsonl and its numbers to TensorBoard; non-finite numbers become null."""
        stats = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in stats.items()}
        with self.writing(), (self.path / _STATS).open("a") as file:
            file.write(json.dumps(stats, allow_nan=False) + "\n")
        try:
            if (events := self._writer(stats["step"])) is not None:
                for name, value in stats.items():
                    if name != "step" and isinstance(value, (int, float)):
                        events.add_scalar(name, value, stats["step"])
        except OSError as error:  # training does not need them
            self._events = False
            _logger.warning(
                "TensorBoard events cannot be written (%s): continuing without them", error.strerror or error
            )

    @contextlib.contextmanager
    def writing(self, advice: str = _ADVICE):
        """Turns an OSError into a FastvaeError with advice."""
        try:
            yield
        except OSError as error:
            raise FastvaeError(f"could not write to {self.path} ({error.strerror or error}): {advice}") from error

    def close(self) -> None:
        """Closes the TensorBoard events and unlocks the folder."""
        if self._events:
            with contextlib.suppress(OSError):  # a full disk was already reported, or only loses events
                self._events.close()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def check_unused(self) -> None:
        """Raises UsageError unless the folder is missing or empty."""
        try:
            used = not self.path.is_dir() or any(entry.name != _LOCK for entry in self.path.iterdir())
        except FileNotFoundError:
            return
        except OSError as error:
            raise UsageError(f"{self.path} cannot be listed ({error.strerror}): choose another --out") from error
        if used and os.path.lexists(self.path):
            raise UsageError(
                f"{self.path} exists already: choose another --out, or if it is a run, continue it: "
                f"{resume_command(self.path)}"
            )

    def _check_kinds(self) -> None:
        """Raises FastvaeError if a path of the run exists but is of the wrong kind."""
        for path, is_kind, what in (
            (self.checkpoints, is_folder, "a folder"),
            (self.pictures, is_folder, "a folder"),
            (self.path / _STATS, is_file, "a file"),
        ):
            if os.path.lexists(path) and not is_kind(path):
                raise FastvaeError(f"expected {what} or a valid link to one at {path}: rename or repair what is there")

    def _write_json(self, name: str, values: dict[str, Any], advice: str = _ADVICE) -> None:
        write_json(self.path / name, values, advice=advice)

    def _writer(self, first_step: int):
        if self._events is None:
            try:
                from torch.utils.tensorboard import SummaryWriter

                _silence_tensorboard_thread()
                self._events = SummaryWriter(str(self.path / "tensorboard"), purge_step=first_step)
            # UnicodeError: TensorBoard only accepts folder names in UTF-8.
            except (ImportError, UnicodeError):
                self._events = False
        return self._events or None


def _silence_tensorboard_thread() -> None:
    """Hides the traceback of TensorBoard's thread on a full disk, which the next call reports anyway."""
    default = threading.excepthook
    if getattr(default, "__name__", "") == "_excepthook":
        return

    def _excepthook(arguments: threading.ExceptHookArgs) -> None:
        thread = type(arguments.thread).__module__
        if not (thread.startswith("tensorboard.") and issubclass(arguments.exc_type, OSError)):
            default(arguments)

    threading.excepthook = _excepthook
