"""The training loop: data, steps, logging, evaluation, checkpoints."""

import logging
import math
import time
from pathlib import Path

import torch

from fastvae import pictures
from fastvae.config import Config
from fastvae.data.identity import Identity
from fastvae.errors import FastvaeError
from fastvae.files.tensor_file import not_finite
from fastvae.pictures import to_images
from fastvae.train import checkpoint, checkpoint_files
from fastvae.train.build import build, open_data
from fastvae.train.config_json import to_json
from fastvae.train.feed import choose_feed
from fastvae.train.held_out import evaluate
from fastvae.train.learning_rates import LearningRates
from fastvae.train.meter import Meter
from fastvae.train.progress import Progress, duration
from fastvae.train.run_folder import RunFolder
from fastvae.train.runner import Runner
from fastvae.train.stopping import StopSignal

_PICTURED = 32
# Of training, before a speed is told: the first steps are slower than those that follow.
_MEASURED_S = 30.0
_logger = logging.getLogger("fastvae")


class Diverged(FastvaeError):
    """A loss, a weight or a metric was not finite: the training since the last checkpoint is lost."""


class Trainer:
    """Trains a run from its start or from a checkpoint. Its folder is locked until `fit` ends.

    Args:
        config: resolved (`build.resolve`).
        folder: of the run; created unless `resume`.
        resume: continue from the newest checkpoint in `folder`, or start again if it has none.
        checkpoint: continue from this one in `folder` instead; later ones are kept under other names.
        allow_other_data: continue even if the checkpoint was trained on other images.

    Attributes:
        done: steps done.
        total: steps of the complete run.
        picture: the newest picture of this run, reconstructions where the system makes them; None if there is none yet.

    Raises:
        FastvaeError: the data, the loss network's weights or the checkpoint cannot be loaded, the checkpoint was made
            with other images, or another process is training this run.
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
    ):
        self.run = RunFolder(folder)
        if resume:
            self.run.hold()
        try:
            self._open(config, resume, checkpoint, allow_other_data)
        except BaseException:
            self.run.close()
            raise

    def _open(self, config: Config, resume: bool, named: Path | None, allow_other_data: bool) -> None:
        device = torch.device(config.train.device)
        try:
            config, images, self.order = open_data(config)
        except FastvaeError as error:
            if not resume:
                raise
            raise type(error)(
                f"{error}. If the images of this run have moved, give their new path with --data"
            ) from error
        self.config, self.train = config, config.train
        self.held_out, self.data = images.held_out(self.train.held_out), images.identity
        self.total = self.order.steps_of(self.train)
        self.objective, self.updates, self.step, self.noise = build(config)
        self.loss_network = getattr(self.objective.loss_network, "digest", None)
        self.rates = LearningRates(self.updates, self.train.lr_decay, device)
        self.done, self.seconds, self._evaluates_first = 0, 0.0, False
        self.picture: Path | None = None
        if resume:
            self._restore(named, allow_other_data)
        else:
            self.run.create(to_json(config))
        self.progress = Progress(self.total)
        self.meter = Meter(min(self.train.log_every, self.total), device)
        self.feed, where = choose_feed(
            images.loader, images.train, self.order, device=device, resident=self.train.resident
        )
        self.runner = Runner(self.step, self.feed, self.noise, self.meter, capture=self.train.cuda_graph == "on")
        self.progress.note(f"{images.reason}; {where}")
        self._saved = self.done if self.done else None
        self._speed_said = False
        # Whether networks, optimisers and noise generator are in the state after `done` steps.
        self._between_steps = True

    def _restore(self, named: Path | None, allow_other_data: bool) -> None:
        """Loads the given or the newest checkpoint, if there is one."""
        checkpoint_files.tidy(self.run.checkpoints)
        saved = checkpoint_files.checkpoints(self.run.checkpoints)
        if newest := named or (saved[-1] if saved else None):
            state = checkpoint.restore(
                newest, config=to_json(self.config), objective=self.objective, updates=self.updates, noise=self.noise
            )
            self._check_data(newest, state.data, allow_other_data)
            self._check_loss_network(newest, state.loss_network)
            checkpoint_files.set_aside_after(newest, state.step)
            self.done, self.seconds = state.step, state.seconds
            self._evaluates_first = self.run.forget_after(self.done)
        else:
            self.run.set_stats_aside()
        self.run.update_config(to_json(self.config))

    def _check_data(self, newest: Path, before: Identity | None, allow_other_data: bool) -> None:
        if before is None or before == self.data:
            return
        message = (
            f"{newest} was trained on {before.train} training images; {self.config.data} holds other images "
            f"({self.data.train} training images)"
        )
        if not allow_other_data:
            raise FastvaeError(f"{message}: give the original ones with --data, or use these with --allow-other-data")
        _logger.warning("%s: continuing with these (--allow-other-data)", message)

    def _check_loss_network(self, newest: Path, before: str | None) -> None:
        if before not in (None, self.loss_network):
            raise FastvaeError(
                f"{newest} was trained with other loss network weights than --vgg {self.config.objective.vgg} holds: "
                "give the original ones with --vgg"
            )

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
                except Exception as error:
                    raise self._saved_after(error) from error
            return stop.received
        finally:
            self.feed.close()
            self.progress.close()
            self.run.close()

    def _fit(self, stop: StopSignal) -> None:
        if self.done == 0 or (self._evaluates_first and self.done < self.total):
            self._evaluate()
        if self.done < self.total:
            self._warm_up()
        self._loop(stop)
        self.run.note_choices()
        self._close_window()
        if self._saved != self.done:
            self._save()
        if stop.received is None:
            self._evaluate()
            self._pictures()

    def _saved_after(self, error: Exception) -> Exception:
        """Saves the steps done so far, unless the error interrupted a step; the error, whose message then says so."""
        if self._saved == self.done or not self._between_steps:
            return error
        try:
            self._close_window()
            self._save()
        except Exception as another:
            return another if isinstance(another, Diverged) else error
        if not isinstance(error, FastvaeError):
            return error
        return FastvaeError(
            f"{error}. The first {self.done} steps are saved; continue with: fastvae train --resume {self.run.path}"
        )

    def _warm_up(self) -> None:
        what = [w for w, on in (("compiled", self.step.compile_passes), ("captured", self.runner.capture)) if on]
        if what:
            self.progress.note(f"the step is being {' and '.join(what)}, which can take minutes the first time")
            self.progress.note(f"ready after {duration(self.runner.warm_up(self.done))}")
            self.run.note_choices()

    def _loop(self, stop: StopSignal) -> None:
        train = self.train
        self._log_start = time.perf_counter()
        while self.done < self.total and stop.received is None:
            if train.minutes is not None and self.seconds >= 60 * train.minutes:
                break
            start = time.perf_counter()
            self.rates.set_epoch(self.done // self.order.steps_per_epoch)
            self._read_images()
            self._between_steps = False
            self.runner(self.done)
            self.done += 1
            self._between_steps = True
            balance = self._balance() if self._is_due(train.balance_every) else {}
            if balance or self._is_due(train.log_every):
                self._close_window(balance)
            self.seconds += time.perf_counter() - start
            self._write_what_is_due()

    def _read_images(self) -> None:
        # Before the step, so that an image that cannot be read does not spoil a step.
        try:
            self.feed.ready(self.done)
        except FastvaeError:
            raise
        except Exception as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise FastvaeError(f"the images of step {self.done + 1} cannot be read ({reason})") from error

    def _write_what_is_due(self) -> None:
        train = self.train
        tasks = []
        if self.done < self.total:  # `_fit` does these two at the end in any case
            tasks += [(train.evaluate_every, self._evaluate), (train.pictures_every, self._pictures)]
        tasks += [(train.checkpoint_every, self._save)]
        if due := [task for every, task in tasks if self._is_due(every)]:
            self._close_window()
            for task in due:
                task()
            self._log_start = time.perf_counter()

    def _is_due(self, every: int) -> bool:
        return every > 0 and self.done % every == 0

    def _balance(self) -> dict[str, float]:
        # The running statistics that its forward passes change are restored.
        images = to_images(self.runner.pixels)
        buffers = [(b, b.clone()) for n in self.objective.networks.values() for b in n.buffers()]
        with self.step.precision():
            ratios = self.objective.balance(images, self.runner.noise)
        for buffer, before in buffers:
            buffer.copy_(before)
        return {name: value.item() for name, value in ratios.items()}

    def _close_window(self, extra: dict[str, float] | None = None) -> None:
        """Logs the means over the steps since the last call, after checking that all terms were finite."""
        reading = self.meter.read()
        if not reading.steps:
            return
        if reading.not_finite:
            index, name, value = reading.not_finite
            step = self.done - reading.steps + index + 1
            raise self._diverged(f"the loss term {name!r} was {value} at step {step}")
        now = time.perf_counter()
        images_per_s = reading.steps * self.train.batch_size / max(now - self._log_start, 1e-9)
        self._log_start = now
        self.run.append(
            {
                "step": self.done,
                "epoch": self.done / self.order.steps_per_epoch,
                "seconds": round(self.seconds, 3),
                "images_per_s": round(images_per_s, 2),
                "lr": self.rates.first,
                **reading.means,
                **(extra or {}),
            }
        )
        left = (self.total - self.done) * self.train.batch_size / images_per_s
        if self.train.minutes is not None:
            left_in_time = max(0.0, 60 * self.train.minutes - self.seconds)
            if not self._speed_said and self.seconds >= _MEASURED_S and left_in_time < left:
                steps = self.done + int(left_in_time * images_per_s / self.train.batch_size)
                self.progress.note(
                    f"at {images_per_s:.1f} images/s about {steps} of {self.total} steps fit into the "
                    f"{self.train.minutes:g} minutes of this run"
                )
                self._speed_said = True
            left = min(left, left_in_time)
        self.progress.show(self.done, images_per_s, reading.means | (extra or {}), left)

    def _diverged(self, what: str) -> Diverged:
        saved = checkpoint_files.checkpoints(self.run.checkpoints)
        last = f"the last good checkpoint is {saved[-1]}" if saved else "there is no checkpoint yet"
        start = "from there" if saved else "from the start"
        return Diverged(
            f"{what}, so training stopped; {last}. `fastvae train --resume {self.run.path} --lr {self.train.lr / 2:g}` "
            f"continues {start} at half the learning rate"
        )

    def _save(self) -> None:
        for name, network in self.objective.networks.items():
            if key := not_finite(network.state_dict()):
                raise self._diverged(f"the weights {name}.{key} were not finite after step {self.done}")
        checkpoint.save(
            self.run.checkpoints,
            step=self.done,
            seconds=self.seconds,
            data=self.data,
            loss_network=self.loss_network,
            config=to_json(self.config),
            objective=self.objective,
            updates=self.updates,
            noise=self.noise,
            keep=self.train.keep_checkpoints,
        )
        self._saved = self.done

    def _evaluate(self) -> None:
        for name, system in self.objective.systems().items():
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

    @torch.no_grad()
    def _pictures(self) -> None:
        originals = self.held_out[:_PICTURED]
        for name, system in self.objective.systems().items():
            generator = torch.Generator().manual_seed(self.train.seed)
            noise = torch.randn(_PICTURED * 2, system.noise_size, generator=generator).to(self.step.device)
            system.train(False)
            with self.step.precision():
                samples = system.sample(noise)
                fakes = system.reconstruct(to_images(torch.from_numpy(originals).to(self.step.device)))
            system.train(True)
            ending = f"{name}-{self.done:08d}.png" if name else f"{self.done:08d}.png"
            self.picture = self.run.pictures / f"samples-{ending}"
            pictures.save_picture(pictures.grid(pictures.to_pixels(samples), 8), self.picture)
            if fakes is not None:
                sheet = pictures.beside(originals, pictures.to_pixels(fakes))
                self.picture = self.run.pictures / f"reconstructions-{ending}"
                pictures.save_picture(sheet, self.picture)
