"""A run's log lines: in stats.jsonl and as the status line."""

from dataclasses import dataclass

from fastvae.config import TrainConfig
from fastvae.train.meter import Reading, Window
from fastvae.train.order import BatchOrder
from fastvae.train.progress import Progress
from fastvae.train.run_folder import RunFolder

# Of training, before a speed is told: the first steps are slower than those that follow.
_MEASURED_S = 30.0
# Whoever waits longer for the first status line is told when it is due.
_SILENCE_S = 10.0


@dataclass(frozen=True)
class Line:
    """A log line whose numbers may still be on the device.

    Attributes:
        step: steps done at its end.
        seconds: of training until then.
        lr: the first learning rate.
        kl_weight: the KL divergence's weight in the last step, while `--kl-warmup` raises it; else None.
        window: the steps since the last line.
    """

    step: int
    seconds: float
    lr: float
    kl_weight: float | None
    window: Window


class Log:
    """Writes log lines.

    Args:
        run: where stats.jsonl is.
        progress: the status line.
        train: time limit.
        order: of the images.
    """

    def __init__(self, run: RunFolder, progress: Progress, train: TrainConfig, order: BatchOrder):
        self._run, self._progress, self._train, self._order = run, progress, train, order
        self._speed_said = False

    def write(self, line: Line, reading: Reading) -> None:
        """Writes a line, of which `reading` are the numbers.

        Raises:
            FastvaeError: it cannot be written.
        """
        images_per_s = reading.steps * self._order.global_batch / max(reading.seconds, 1e-9)
        numbers = reading.means | reading.extra
        rising = {} if line.kl_weight is None else {"kl_weight": line.kl_weight}
        several = {} if self._order.ranks == 1 else {"ranks": self._order.ranks}
        self._run.append(
            {
                "step": line.step,
                "epoch": self._order.epochs(line.step),
                "seconds": round(line.seconds, 3),
                "images_per_s": round(images_per_s, 2),
                "lr": line.lr,
                **rising,
                **several,
                **numbers,
            }
        )
        self._progress.show(line.step, images_per_s, numbers, self._seconds_left(line, images_per_s))

    def after_first_step(self, seconds: float) -> None:
        """Says when the first line is due, if that takes long.

        Args:
            seconds: that the step took; on a GPU only those until it was launched.
        """
        steps = self._train.log_every
        if (steps - 1) * seconds > _SILENCE_S and self._progress.total > 1:
            self._progress.note(f"the first step took {seconds:.1f} s; losses follow every {steps} steps")

    def _seconds_left(self, line: Line, images_per_s: float) -> float:
        train, total = self._train, self._progress.total
        left = (total - line.step) * self._order.global_batch / images_per_s
        if train.minutes is None:
            return left
        left_in_time = max(0.0, 60 * train.minutes - line.seconds)
        if not self._speed_said and line.seconds >= _MEASURED_S and left_in_time < left:
            steps = line.step + int(left_in_time * images_per_s / self._order.global_batch)
            self._progress.note(
                f"at {images_per_s:.1f} images/s about {steps} of {total} steps fit into the "
                f"{train.minutes:g} minutes of this run"
            )
            self._speed_said = True
        return min(left, left_in_time)


def about_batch_and_rate(train: TrainConfig, order: BatchOrder, *, resumed: bool = False) -> str:
    """What several ranks make of the flags' batch and learning rate, and how to have it otherwise.

    Args:
        train: the flags.
        order: of the images.
        resumed: the run goes on, and keeps its batch.
    """
    each = train.batch_size // order.ranks
    # At least two, for batch normalisation.
    same = f"For results as with {train.batch_size} images a step give --batch-size {each}; for" if each >= 2 else "For"
    return (
        f"{order.ranks} ranks with {train.batch_size} images each: a step has {order.global_batch} images and the "
        f"learning rate stays {train.lr:g}. {'For' if resumed else same} larger steps "
        f"--lr {train.lr * order.ranks**0.5:.3g} (by the root of their size) is usual with Adam"
    )
