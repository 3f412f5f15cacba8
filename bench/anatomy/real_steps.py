"""Steps of a training run as `fastvae train` makes them: its loader, feed, captured step and log readings."""

import gc
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from fastvae.config import Config
from fastvae.errors import FastvaeError
from fastvae.train.device_feed import ResidentFeed
from fastvae.train.late_work import LateWork
from fastvae.train.meter import Window as Terms
from fastvae.train.trainer import Trainer


@dataclass(frozen=True)
class Window:
    """Steps that ran one after the other; the clock stops when the device is done with the last.

    Attributes:
        images: of all its steps.
        waited_s: seconds that the host waited for the loader.
    """

    steps: int
    images: int
    seconds: float
    waited_s: float

    @property
    def step_s(self) -> float:
        """Seconds a step."""
        return self.seconds / self.steps

    @property
    def image_s(self) -> float:
        """Seconds an image."""
        return self.seconds / self.images


class RealSteps:
    """A run whose steps are taken window by window. What it writes goes to a folder that is removed at the end.

    Args:
        config: resolved.

    Attributes:
        trainer: of the run.

    Raises:
        FastvaeError: see `Trainer`.
    """

    def __init__(self, config: Config):
        self._on_gpu = config.train.device == "cuda"
        if self._on_gpu:
            gc.collect()  # an earlier run's graphs and their memory
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        with ExitStack() as opened:
            folder = opened.enter_context(tempfile.TemporaryDirectory(prefix="fastvae-"))
            self.trainer = Trainer(config, Path(folder) / "run")
            for part in (self.trainer.run, self.trainer.progress, self.trainer.feed):
                opened.callback(part.close)
            self._opened = opened.pop_all()
        self._done = 0

    def __enter__(self) -> "RealSteps":
        return self

    def __exit__(self, *_) -> None:
        self._opened.close()

    @property
    def epoch(self) -> int:
        """Of the next step, from 0."""
        return self._done // self.trainer.order.steps_per_epoch

    @property
    def fills_in_first_epoch(self) -> bool:
        """Whether the first epoch loads what later ones find on the device."""
        return isinstance(self.trainer.feed, ResidentFeed)

    @property
    def memory(self) -> tuple[int, int] | None:
        """Bytes of the GPU that torch had allocated and reserved at most since this run was made; None on a CPU."""
        return (torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()) if self._on_gpu else None

    @property
    def resident(self) -> int:
        """Bytes of images that are kept on the device."""
        return self.trainer.feed.rows.numel() if self.fills_in_first_epoch else 0

    def warm_up(self) -> float:
        """Compiles and captures the step without training; seconds."""
        return self.trainer.runner.warm_up(self._done)

    def window(self, steps: int) -> Window:
        """Trains `steps` more steps, or fewer, to the end of the epoch.

        Raises:
            FastvaeError: a loss is not finite.
        """
        trainer, train = self.trainer, self.trainer.train
        epoch = self.epoch
        steps = min(steps, (epoch + 1) * trainer.order.steps_per_epoch - self._done)
        waited_s, unread, late = 0.0, 0, LateWork(late=self._on_gpu)  # as the log does it
        if self._on_gpu:
            torch.cuda.synchronize()
        start = time.perf_counter()
        for index in range(steps):
            trainer.rates.set_epoch(epoch)
            before = time.perf_counter()
            trainer.feed.ready(self._done)  # the runner finds it done
            waited_s += time.perf_counter() - before
            trainer.runner(self._done)
            self._done += 1
            unread += 1
            if unread == train.log_every or index == steps - 1:
                unread = 0
                late.add_window(partial(_check, trainer.meter.close(), self._done))
        late.flush()  # waits for the device
        seconds = time.perf_counter() - start
        return Window(steps, steps * train.batch_size, seconds, waited_s)


def _check(terms: Terms, step: int) -> None:
    if broken := terms.read().not_finite:
        raise FastvaeError(f"the loss term {broken[1]!r} was {broken[2]} near step {step}: nothing to time")
