"""The folder of a run: config, environment, statistics, pictures, checkpoints."""

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
from fastvae.machine import environment

# Locked by the process that writes into the folder; holds who that is.
_LOCK = ".lock"
_STATS = "stats.jsonl"
_ADVICE = "free some space or check the permissions, then continue with --resume"
_ADVICE_FOR_NEW = "free some space, check the permissions, or choose another --out"
_logger = logging.getLogger("fastvae")


class RunFolder:
    """Writes a run's files and turns a full disk into a message.

    config.json       everything that was decided, as resolved
    environment.json  versions, processor, threads, GPU
    stats.jsonl       one JSON object a line: losses, speed, evaluations
    pictures/         grids
    checkpoints/      see `checkpoint`
    tensorboard/      the same numbers as events, where TensorBoard is installed
    """

    def __init__(self, path: Path):
        self.path = path
        self.checkpoints, self.pictures = path / "checkpoints", path / "pictures"
        self._events = None
        self._lock: int | None = None

    def create(self, config: dict[str, Any]) -> None:
        """Makes the folder, keeps other processes from writing into it, and writes config.json and environment.json.

        Raises:
            UsageError: the folder exists and is not empty.
            FastvaeError: it cannot be written, or another process is about to.
        """
        self._refuse_used()
        with self.writing(_ADVICE_FOR_NEW):
            self.path.mkdir(parents=True, exist_ok=True)
        self.hold(_ADVICE_FOR_NEW)
        try:
            self._refuse_used()  # again: another process may have been as fast
            self._write_json("config.json", config, _ADVICE_FOR_NEW)
            self._write_json("environment.json", {**environment(), "command": sys.argv}, _ADVICE_FOR_NEW)
        except BaseException:
            self.close()
            raise

    def hold(self, advice: str = _ADVICE) -> None:
        """Keeps other processes from writing into the folder until `close`, or until this process ends.

        Raises:
            FastvaeError: another process holds it, or something else lies where the run's folders and files belong.
        """
        self._refuse_others()
        path = self.path / _LOCK
        with self.writing(advice):
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        if not locks.try_lock(descriptor):
            with os.fdopen(descriptor, "rb") as file:
                holder = file.read(1000).decode("utf-8", "replace").strip() or "another process"
            raise FastvaeError(
                f"{self.path} is being written by {holder}: wait until that run ends, or stop it; it saves what it has"
            )
        self._lock = descriptor
        with self.writing(advice):
            os.ftruncate(descriptor, 0)
            since = time.strftime("%Y-%m-%d %H:%M:%S")
            os.write(descriptor, f"process {os.getpid()} on {platform.node()} since {since}\n".encode())
        remove_abandoned(self.path)
        remove_abandoned(self.pictures)

    def update_config(self, config: dict[str, Any]) -> None:
        """Writes the config of a run that goes on, so that its next continuation knows the new flags."""
        self._write_json("config.json", config)

    def read_config(self) -> Any:
        """What `create` wrote.

        Raises:
            FastvaeError: it is missing or damaged.
        """
        try:
            return reading.read_json(self.path / "config.json")
        except FastvaeError as error:
            raise FastvaeError(f"{error}: is {self.path} the folder of a run?") from error

    def forget_after(self, step: int) -> bool:
        """Drops what a run that goes on from a step will write again in stats.jsonl, and damaged lines.

        That is every line of a later step, and the evaluation at this one, which may have been interrupted.

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
        """Begins stats.jsonl anew; steps that are in it, of which there is no checkpoint, are kept in another file."""
        path = self.path / _STATS
        if not any(isinstance(line.get("step"), int) and line["step"] > 0 for line in reading.read_json_lines(path)):
            self.forget_after(-1)
            return
        names = (self.path / f"stats-before-{number}.jsonl" for number in itertools.count(1))
        aside = next(name for name in names if not os.path.lexists(name))
        with self.writing():
            path.rename(aside)
        _logger.warning(
            "%s has no checkpoint and begins again; the steps that it had logged are kept in %s", self.path, aside.name
        )

    def append(self, stats: dict[str, Any]) -> None:
        """Adds a line to stats.jsonl, and its numbers to TensorBoard; numbers that are not finite become null."""
        stats = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in stats.items()}
        with self.writing(), (self.path / _STATS).open("a") as file:
            file.write(json.dumps(stats, allow_nan=False) + "\n")
        try:
            if (events := self._writer(stats["step"])) is not None:
                for name, value in stats.items():
                    if name != "step" and isinstance(value, (int, float)):
                        events.add_scalar(name, value, stats["step"])
        except OSError as error:  # a run is as good without
            self._events = False
            _logger.warning("TensorBoard's events cannot be written (%s): going on without", error.strerror or error)

    @contextlib.contextmanager
    def writing(self, advice: str = _ADVICE):
        """Turns OSError into a FastvaeError that says what to do."""
        try:
            yield
        except OSError as error:
            raise FastvaeError(f"could not write to {self.path} ({error.strerror or error}): {advice}") from error

    def close(self) -> None:
        """Flushes TensorBoard's events and lets others write into the folder."""
        if self._events:
            with contextlib.suppress(OSError):  # a full disk has been reported already, or cost events only
                self._events.close()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _refuse_used(self) -> None:
        """Raises UsageError unless the folder is missing or empty."""
        try:
            used = not self.path.is_dir() or any(entry.name != _LOCK for entry in self.path.iterdir())
        except FileNotFoundError:
            return
        except OSError as error:
            raise UsageError(f"{self.path} cannot be looked into ({error.strerror}): choose another --out") from error
        if used and os.path.lexists(self.path):
            raise UsageError(
                f"{self.path} exists already: choose another --out, or continue that run with --resume {self.path} "
                "if it is one"
            )

    def _refuse_others(self) -> None:
        """Raises FastvaeError where what lies in the place of the run's folders and files is something else."""
        for path, is_right, what in (
            (self.checkpoints, is_folder, "a folder"),
            (self.pictures, is_folder, "a folder"),
            (self.path / _STATS, is_file, "a file"),
        ):
            if os.path.lexists(path) and not is_right(path):
                raise FastvaeError(f"{path} is not {what}, nor a link to one that is there: rename it, or put it right")

    def _write_json(self, name: str, values: dict[str, Any], advice: str = _ADVICE) -> None:
        write_json(self.path / name, values, advice=advice)

    def _writer(self, first_step: int):
        if self._events is None:
            try:
                from torch.utils.tensorboard import SummaryWriter

                _keep_quiet_of_its_thread()
                self._events = SummaryWriter(str(self.path / "tensorboard"), purge_step=first_step)
            # UnicodeError: TensorBoard takes no folder whose name is not UTF-8.
            except (ImportError, UnicodeError):
                self._events = False
        return self._events or None


def _keep_quiet_of_its_thread() -> None:
    """TensorBoard's thread ends with a traceback where the disk is full, which the next call reports anyhow."""
    usual = threading.excepthook
    if getattr(usual, "__name__", "") == "_unless_tensorboard_s":
        return

    def _unless_tensorboard_s(arguments: threading.ExceptHookArgs) -> None:
        thread = type(arguments.thread).__module__
        if not (thread.startswith("tensorboard.") and issubclass(arguments.exc_type, OSError)):
            usual(arguments)

    threading.excepthook = _unless_tensorboard_s
