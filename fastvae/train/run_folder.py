"""The folder of a run: config, environment, statistics, pictures, checkpoints."""

import contextlib
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from fastvae import __version__
from fastvae.errors import FastvaeError, UsageError


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

    def create(self, config: dict[str, Any]) -> None:
        """Makes the folder and writes config.json and environment.json.

        Raises:
            UsageError: the folder exists and is not empty.
            FastvaeError: it cannot be written.
        """
        if self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
            raise UsageError(
                f"{self.path} exists already: choose another --out, or continue that run with --resume {self.path} "
                "if it has a checkpoint"
            )
        with self.writing():
            self.path.mkdir(parents=True, exist_ok=True)
            self._write_json("config.json", config)
            self._write_json("environment.json", {**environment(), "command": sys.argv})

    def update_config(self, config: dict[str, Any]) -> None:
        """Writes the config of a run that goes on, so that its next continuation knows the new flags."""
        with self.writing():
            self._write_json("config.json", config)

    def read_config(self) -> dict[str, Any]:
        """What `create` wrote.

        Raises:
            FastvaeError: it is missing or damaged.
        """
        path = self.path / "config.json"
        try:
            return json.loads(path.read_text())
        except (OSError, ValueError) as error:
            raise FastvaeError(f"{path} cannot be read ({error}): is {self.path} the folder of a run?") from error

    def forget_after(self, step: int) -> None:
        """Drops the lines of stats.jsonl after a step, which a resumed run will write again."""
        path = self.path / "stats.jsonl"
        if path.exists():
            with self.writing():
                lines = [line for line in path.read_text().splitlines() if _step_of(line) <= step]
                self._replace(path.name, "".join(f"{line}\n" for line in lines))

    def append(self, stats: dict[str, Any]) -> None:
        """Adds a line to stats.jsonl, and its numbers to TensorBoard."""
        with self.writing(), (self.path / "stats.jsonl").open("a") as file:
            file.write(json.dumps(stats) + "\n")
            if (events := self._writer(stats["step"])) is not None:
                for name, value in stats.items():
                    if name != "step" and isinstance(value, (int, float)):
                        events.add_scalar(name, value, stats["step"])

    @contextlib.contextmanager
    def writing(self):
        """Turns OSError into a FastvaeError that says what to do."""
        try:
            yield
        except OSError as error:
            raise FastvaeError(
                f"could not write to {self.path} ({error.strerror or error}): free some space or check the "
                "permissions, then continue with --resume"
            ) from error

    def close(self) -> None:
        """Flushes TensorBoard's events."""
        if self._events:
            with contextlib.suppress(OSError):  # a full disk has been reported already, or cost events only
                self._events.close()

    def _write_json(self, name: str, values: dict[str, Any]) -> None:
        self._replace(name, json.dumps(values, indent=1) + "\n")

    def _replace(self, name: str, text: str) -> None:
        # Under another name first, so that a full disk leaves the old file whole.
        temporary = self.path / f".{name}.part"
        temporary.write_text(text)
        temporary.replace(self.path / name)

    def _writer(self, first_step: int):
        if self._events is None:
            try:
                from torch.utils.tensorboard import SummaryWriter

                self._events = SummaryWriter(str(self.path / "tensorboard"), purge_step=first_step)
            except ImportError:
                self._events = False
        return self._events or None


def environment() -> dict[str, Any]:
    """Versions, processor, threads and GPU of this process."""
    cuda = torch.cuda.is_available()
    return {
        "fastvae": __version__,
        "commit": _commit(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "platform": platform.platform(),
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if cuda else None,
    }


def _commit() -> str | None:
    try:
        return subprocess.run(
            ["git", "describe", "--always", "--dirty"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def _step_of(line: str) -> int:
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError):
        return sys.maxsize  # the half-written last line of a run that was killed
