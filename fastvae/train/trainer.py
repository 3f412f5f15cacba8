"""The training loop: data, steps, logging, evaluation, checkpoints."""

import logging
import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from fastvae.config import Config
from fastvae.distributed.failure import LostRank
from fastvae.distributed.ranks import ALONE, Ranks
from fastvae.errors import FastvaeError
from fastvae.objectives.held_share import is_unlimited
from fastvae.train import checkpoint, checkpoint_files
from fastvae.train.build import build, open_data
from fastvae.train.config_json import to_json
from fastvae.train.feed import choose_feed
from fastvae.train.held_out import evaluate
from fastvae.train.initial_weights import Source, initialise
from fastvae.train.kl_warmup import KlWarmup
from fastvae.train.late_work import LateWork
from fastvae.train.learning_rates import LearningRates
from fastvae.train.log import Line, Log, about_batch_and_rate
from fastvae.train.meter import Meter
from fastvae.train.progress import Progress, duration
from fastvae.train.restore import Expected, restore
from fastvae.train.run_folder import RunFolder
from fastvae.train.runner import Runner
from fastvae.train.saving import Saver
from fastvae.train.shared_state import check_same_images, check_same_loss_network, share
from fastvae.train.sheets import save_sheets
from fastvae.train.stopping import StopSignal
from fastvae.train.unwritten_run import UnwrittenRun, unseen_progress

_logger = logging.getLogger("fastvae")


class Diverged(FastvaeError):
    """A loss, a weight or a metric was not finite: the training since the last checkpoint is lost.

    Attributes:
        on_all_ranks: every rank sees it, since it is in the mean of all, so that rank 0 speaks for all.
    """

    on_all_ranks = True


class Trainer:
    """Trains a run from its start or from a checkpoint. Its folder is locked until `fit` ends.

    Args:
        config: resolved (`build.resolve`).
        folder: of the run; created unless `resume`.
        resume: continue from the newest checkpoint in `folder`, or start again if it has none.
        checkpoint: continue from this one in `folder` instead; later ones are kept under other names.
        allow_other_data: continue even if the checkpoint was trained on other images.
        init: weights that a new run starts from; None for those drawn from the seed. Rank 0 passes them on.
        ranks: the processes that train this run, each with a trainer like this one. Rank 0 reads and writes the folder.

    Attributes:
        done: steps done.
        total: steps of the complete run.
        picture: the newest picture of this run, reconstructions where the system makes them; None if there is none yet.

    Raises:
        FastvaeError: the data, the loss network's weights or the checkpoint cannot be loaded, the checkpoint was made
            with other images, nothing of `init` fits, or another process is training this run.
        UsageError: the folder exists already, or a flag contradicts the data.
    """

    def __init__(
        self,
        config: Config,
        folder: Path,
        *,
        resume: bool = False,
        checkpoint: Path | None = None,
        allow_other_data: bool = False,
        init: Source | None = None,
        ranks: Ranks = ALONE,
    ):
        self.ranks = ranks
        self.run = RunFolder(folder) if ranks.first else UnwrittenRun(folder)
        if resume:
            self.run.hold()
        try:
            self._open(config, resume, checkpoint, allow_other_data, init)
        except BaseException:
            self.run.close()
            raise

    def _open(
        self, config: Config, resume: bool, named: Path | None, allow_other_data: bool, init: Source | None
    ) -> None:
        device, ranks = torch.device(config.train.device), self.ranks
        with ranks.first_of_machine_first():
            try:
                config, images, self.order = open_data(config, ranks)
            except FastvaeError as error:
                if not resume:
                    raise
                raise type(error)(
                    f"{error}. If the images of this run have moved, give their new path with --data"
                ) from error
            training = build(config, ranks)
        self.objective, self.updates, self.step, self.noise = training
        self.config, self.train = config, config.train
        self.held_out, self.data = images.held_out(self.train.held_out), images.identity
        check_same_images(ranks, images)
        self.loss_network = getattr(self.objective.loss_network, "digest", None)
        check_same_loss_network(ranks, self.loss_network)
        self.average = self.step.average
        self.rates = LearningRates(self.updates, self.train.lr_decay, device)
        self.done, self.seconds, self._evaluates_first = 0, 0.0, False
        self.picture: Path | None = None
        restored, noises = None, []
        if not resume:
            self._start(init)
        elif ranks.first:
            expected = Expected(config, self.data, self.loss_network, self.order, allow_other_data)
            restored, noises = restore(self.run, named, training, expected)
        restored = share(ranks, restored, noises, training, seed=self.train.seed)
        if restored is not None:
            self.done, self.seconds, self._evaluates_first = restored.step, restored.seconds, restored.evaluates_first
            self.order.start_at(restored.step, restored.epoch, restored.images)
        self.total = self.order.steps_of(self.train)
        self.kl_warmup = self._kl_warmup_of(restored.kl_warmup_steps if restored else None)
        self.progress = Progress(self.total) if ranks.first else unseen_progress(self.total)
        self.log = Log(self.run, self.progress, self.train, self.order)
        self.meter = Meter(min(self.train.log_every, self.total), device)
        self.feed, where = choose_feed(
            images.loader, images.train, self.order, device=device, resident=self.train.resident, ranks=ranks
        )
        self.runner = Runner(self.step, self.feed, self.noise, self.meter, capture=self.train.cuda_graph == "on")
        self.progress.note(f"{images.reason}; {where}")
        if not ranks.alone:
            self.progress.note(about_batch_and_rate(self.train, self.order, resumed=resume))
        self.late = LateWork(late=device.type == "cuda")
        self.saver = Saver(self.run, self.config, ranks, self.late, self._current, device=device, restored=restored)
        ranks.on_loss(self.saver.save_kept)
        # Whether networks, optimisers and noise generator are in the state after `done` steps.
        self._between_steps = True

    def _start(self, init: Source | None) -> None:
        if init is not None:
            initialise(self.objective, init)
            self.config = replace(self.config, initial_weights=init.record)
            if self.average is not None:
                self.average.restart()
        self.run.create(to_json(self.config))

    def _kl_warmup_of(self, steps: int | None) -> KlWarmup:
        share = getattr(self.config.objective, "kl_warmup", 0.0)
        own = math.ceil(share * self.total)
        # A resumed run that is longer now keeps its steps, so that a weight that has risen does not fall.
        return KlWarmup(self.objective, own if steps is None else min(steps, own))

    def fit(self) -> int | None:
        """Trains to the end, or until a signal or the time limit; saves a checkpoint in each case.

        Returns:
            Number of the signal that stopped it, or None.

        Raises:
            Diverged: a loss, weight or metric was not finite.
            FastvaeError: images can no longer be read, or a file cannot be written. The steps done so far are saved if
                possible.
        """
        try:
            with StopSignal() as stop:
                try:
                    self._fit(stop)
                except Diverged:
                    raise
                except checkpoint.NotFinite as error:
                    raise self._diverged(str(error)) from error
                except Exception as error:
                    raise self._saved_after(error) from error
            return self._signal(stop)
        finally:
            try:
                self.saver.settle()
            finally:
                self.feed.close()
                self.progress.close()
                self.run.close()

    def _fit(self, stop: StopSignal) -> None:
        if self.config.initial_weights is not None and self.saver.step is None:
            self.saver.save()  # so that resuming it never needs what it started from
            self.saver.finish()
        if self.done == 0 or (self._evaluates_first and self.done < self.total):
            self._evaluate()
        if self.done < self.total:
            self._warm_up()
        self._loop(stop)
        self.run.note_choices()
        self._close_window()
        self.saver.finish()
        if self.saver.step != self.done:
            self.saver.save()
            self.saver.finish()
        if self._signal(stop) is None:
            self._evaluate()
            self._pictures()

    def _saved_after(self, error: Exception) -> Exception:
        """Saves the steps done so far, unless the error interrupted a step; the error, whose message then says so."""
        if not self.ranks.alone:
            # The others are in the middle of a step.
            if not self.ranks.first or isinstance(error, LostRank | checkpoint.NotSaved):
                return error
            kept = self.saver.save_kept()
            if isinstance(error, FastvaeError):
                return FastvaeError(f"{error}{kept}")
            error.add_note(kept.removeprefix(". "))
            return error
        try:
            self.late.flush()
            if isinstance(failed := self.saver.settle(), checkpoint.NotFinite):
                raise failed
            if self.saver.step == self.done or not self._between_steps:
                return error
            self._close_window()
            self.saver.save()
            self.saver.finish()
        except checkpoint.NotFinite as another:
            return self._diverged(str(another))
        except Exception as another:
            return another if isinstance(another, Diverged) else error
        if not isinstance(error, FastvaeError):
            return error
        go_on = checkpoint_files.resume_command(self.run.path)
        return FastvaeError(f"{error}. The first {self.done} steps are saved; continue with: {go_on}")

    def _warm_up(self) -> None:
        what = [w for w, on in (("compiled", self.step.compile_passes), ("captured", self.runner.capture)) if on]
        if what:
            self.progress.note(f"the step is being {' and '.join(what)}, which can take minutes the first time")
            self.progress.note(f"ready after {duration(self.runner.warm_up(self.done, self.total))}")
            self.run.note_choices()

    def _loop(self, stop: StopSignal) -> None:
        train, begun_at = self.train, self.done
        unlimited = any(map(is_unlimited, self.objective.steered().items()))
        self.meter.start()
        while self.done < self.total and not self._ends(stop):
            start = time.perf_counter()
            self.rates.set_epoch(self.order.place(self.done)[0])
            self.kl_warmup.set_step(self.done)
            self._read_images()
            self._between_steps = False
            self.runner(self.done)
            self.done += 1
            self._between_steps = True
            if self.done == begun_at + 1:
                self.log.after_first_step(time.perf_counter() - start)
            self.saver.check()
            balance = self._balance() if self._is_due(train.balance_every) else {}
            if unlimited and not balance:
                self._balance()  # until it is measured, nothing limits a held critic; logged from the next time on
            unlimited = False
            if balance or self._is_due(train.log_every):
                self._close_window(balance, start)
            due, saves = self._due()
            if due or saves:
                self._close_window(since=start)
            if due:
                self.late.flush()
            self.seconds += time.perf_counter() - start
            for task in due:
                task()
            if saves:
                self.saver.save()
            if due:
                self.meter.start()

    def _ends(self, stop: StopSignal) -> bool:
        """Whether training ends before its last step. All ranks end after the same one."""
        ranks, window_ends = self.ranks, not self.meter.steps
        if not ranks.alone and self.step.device.type == "cuda" and not window_ends:
            return False  # the hosts would wait for each other at every step
        over = self.train.minutes is not None and self.seconds >= 60 * self.train.minutes
        keeps = not ranks.alone and window_ends and self.done > 0 and self.saver.keeps_now
        signal, over, keeps = ranks.largest(stop.received or 0, ranks.first and over, ranks.first and keeps)
        if keeps:
            self.saver.keep()
        return bool(signal or over)

    def _signal(self, stop: StopSignal) -> int | None:
        """The signal that any rank has received; all wait for each other."""
        (signal,) = self.ranks.largest(stop.received or 0)
        return signal or None

    def _read_images(self) -> None:
        # Before the step, so that an image that cannot be read does not spoil a step.
        try:
            with self.ranks.reads(f"reading the images of step {self.done + 1}"):
                self.feed.ready(self.done)
        except FastvaeError:
            raise
        except Exception as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise FastvaeError(f"the images of step {self.done + 1} cannot be read ({reason})") from error

    def _due(self) -> tuple[list[Callable[[], None]], bool]:
        """What is to be done on the host after this step, and whether to save a checkpoint after that."""
        train = self.train
        tasks = [(train.evaluate_every, self._evaluate), (train.pictures_every, self._pictures)]
        # `_fit` does these two at the end in any case.
        due = [task for every, task in tasks if self._is_due(every)] if self.done < self.total else []
        # Only where a window ends, as it does before what is due: where a line of stats.jsonl begins must not depend on
        # time.
        ends = bool(due) or not self.meter.steps
        in_time = ends and self.seconds - self.saver.at >= 60 * train.checkpoint_minutes > 0
        if ends:
            (in_time,) = self.ranks.largest(self.ranks.first and in_time)
        return due, bool(in_time) or self._is_due(train.checkpoint_every)

    def _is_due(self, every: int) -> bool:
        return every > 0 and self.done % every == 0

    def _balance(self) -> dict[str, Tensor]:
        # The running statistics that its forward passes change are restored.
        images = self.step.images(*self.runner.batch)
        buffers = [(b, b.clone()) for n in self.objective.networks.values() for b in n.buffers()]
        try:
            with self.runner.fits("measuring the critic's share of the gradient"), self.step.precision():
                ratios = self.objective.balance(images, self.runner.noise)
        finally:
            for buffer, before in buffers:
                buffer.copy_(before)
        if ratios and not self.ranks.alone:
            together = torch.stack(list(ratios.values()))
            self.ranks.average_(together)
            ratios = dict(zip(ratios, together.unbind(), strict=True))
        if ratios:
            self.objective.steer(ratios)
        return ratios

    def _close_window(self, extra: dict[str, Tensor] | None = None, since: float | None = None) -> None:
        """Logs the means over the steps since the last call, on a GPU later; all terms must be finite.

        Args:
            extra: other numbers of the line.
            since: when the last step began, if its time is not counted yet.
        """
        if self.meter.steps:
            seconds = self.seconds + (0.0 if since is None else time.perf_counter() - since)
            line = Line(self.done, seconds, self.rates.first, self.kl_warmup.weight, self.meter.close(extra))
            self.late.add_window(lambda: self._write(line))

    def _write(self, line: Line) -> None:
        reading = line.window.read()
        if reading.not_finite:
            index, name, value = reading.not_finite
            step = line.step - reading.steps + index + 1
            raise self._diverged(f"the loss term {name!r} was {value} at step {step}")
        self.log.write(line, reading)

    def _diverged(self, what: str) -> Diverged:
        self.saver.settle()
        saved = checkpoint_files.checkpoints(self.run.checkpoints)
        last = f"the last good checkpoint is {saved[-1]}" if saved else "there is no checkpoint yet"
        start = "from there" if saved else "from the start"
        again = f"{checkpoint_files.resume_command(self.run.path)} --lr {self.train.lr / 2:g}"
        return Diverged(f"{what}, so training stopped; {last}. `{again}` continues {start} at half the learning rate")

    def _current(self) -> tuple[checkpoint.State, dict[tuple[str, str], Tensor]]:
        """What a checkpoint holds now; all ranks take part."""
        state = checkpoint.State(
            checkpoint_files.FORMAT,
            self.done,
            self.seconds,
            self.data,
            self.loss_network,
            self.kl_warmup.steps,
            *self.order.place(self.done),
            self.ranks.size,
        )
        noises = self.ranks.gathered(self.noise.get_state())
        return state, checkpoint.tensors(self.objective, self.updates, noises, self.average)

    def _averaged(self) -> AbstractContextManager:
        """Inside, the networks hold the average of their weights, if the run has one."""
        return nullcontext() if self.average is None else self.average.in_use()

    def _evaluate(self) -> None:
        if not self.ranks.first:
            return
        for name, system in self.objective.systems().items():
            with self._averaged():
                metrics = evaluate(system, self.step, self.held_out)
            if not metrics:
                continue
            if bad := next((k for k, v in metrics.items() if not math.isfinite(v)), None):
                raise self._diverged(f"the held-out images' {bad} was {metrics[bad]} after step {self.done}")
            summary = ", ".join(f"{key} {value:.4g}" for key, value in metrics.items())
            of = f"{name}, held-out images" if name else "held-out images"
            self.progress.note(f"{of} after {self.done} steps: {summary}")
            prefix = f"held_out_{name}_" if name else "held_out_"
            self.run.append({"step": self.done, **{f"{prefix}{key}": value for key, value in metrics.items()}})

    def _pictures(self) -> None:
        if self.ranks.first:
            with self._averaged():
                self.picture = save_sheets(
                    self.objective, self.step, self.held_out, self.run.pictures, self.done, self.train.seed
                )
