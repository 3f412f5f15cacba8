"""Brings a new process to where a run stopped: rank 0 reads the newest checkpoint, the others get it from rank 0."""

import logging
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from fastvae.config import Config
from fastvae.data.identity import Identity
from fastvae.errors import FastvaeError
from fastvae.train import checkpoint, checkpoint_files
from fastvae.train.build import Training
from fastvae.train.config_json import to_json
from fastvae.train.order import BatchOrder
from fastvae.train.run_folder import RunFolder
from fastvae.train.shared_state import Restored

_logger = logging.getLogger("fastvae")


@dataclass(frozen=True)
class Expected:
    """What this process has opened, with which a checkpoint must agree.

    Attributes:
        config: of the run, whose `data` may have moved.
        data: identity of the training images.
        loss_network: digest of the loss network's weights, or None.
        order: of the batches, before `start_at`.
        allow_other_data: continue even if the checkpoint was trained on other images.
    """

    config: Config
    data: Identity
    loss_network: str | None
    order: BatchOrder
    allow_other_data: bool


def restore(
    run: RunFolder, named: Path | None, training: Training, expected: Expected
) -> tuple[Restored | None, list[Tensor]]:
    """Loads the given or the newest checkpoint of a run, if it has one, into what is trained.

    Later checkpoints are set aside, later lines of stats.jsonl removed; config.json gets this process's config,
    environment.json its command.

    Returns:
        Where the run stood, or None if it starts again, and the saved state of each rank's noise generator.

    Raises:
        FastvaeError: the checkpoint cannot be read, does not agree with what is expected, or there is none and the run
            had begun with the weights of another.
    """
    restored, noises = None, []
    checkpoint_files.tidy(run.checkpoints)
    saved = checkpoint_files.checkpoints(run.checkpoints)
    if newest := named or (saved[-1] if saved else None):
        state, noises = checkpoint.restore(
            newest,
            config=to_json(expected.config),
            objective=training.objective,
            updates=training.updates,
            noise=training.noise,
            average=training.step.average,
        )
        _check_data(newest, state.data, expected)
        if state.loss_network not in (None, expected.loss_network):
            raise FastvaeError(
                f"{newest} was trained with other loss network weights than --vgg {expected.config.objective.vgg} "
                "holds: give the original ones with --vgg"
            )
        checkpoint_files.adopt(newest, state.step)
        checkpoint_files.set_aside_after(newest, state.step)
        restored = _where(newest, state, expected.order, evaluates_first=run.forget_after(state.step))
    elif (start := expected.config.initial_weights) is not None:
        raise FastvaeError(
            f"{run.path} was stopped before its first checkpoint, which would hold the weights of {start.source} that "
            f"it started from: start a new run with --init {start.source}"
        )
    else:
        run.set_stats_aside()
    run.update_config(to_json(expected.config))
    run.note_resumed(0 if restored is None else restored.step)
    return restored, noises


def _where(newest: Path, state: checkpoint.State, order: BatchOrder, *, evaluates_first: bool) -> Restored:
    # Earlier versions had one rank.
    before = BatchOrder(order.count, order.batch_size, order.seed).place(state.step)
    epoch, images = before if state.epoch is None else (state.epoch, state.images)
    if state.ranks != order.ranks:
        _logger.info(
            "%s: the number of ranks was %d and is now %d; they go on after %d images of epoch %d",
            newest,
            state.ranks,
            order.ranks,
            images,
            epoch + 1,
        )
    return Restored(state.step, state.seconds, epoch, images, state.kl_warmup_steps, evaluates_first)


def _check_data(newest: Path, before: Identity | None, expected: Expected) -> None:
    if before is None or before == expected.data:
        return
    message = (
        f"{newest} was trained on {before.train} training images; {expected.config.data} holds other images "
        f"({expected.data.train} training images)"
    )
    if not expected.allow_other_data:
        raise FastvaeError(f"{message}: give the original ones with --data, or use these with --allow-other-data")
    _logger.warning("%s: continuing with these (--allow-other-data)", message)
