"""Builds from a config what a run trains with: data, networks, optimisers."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import NamedTuple

import torch

from fastvae.config import Config
from fastvae.data.cores import decoding_threads
from fastvae.data.dataset import EMBEDDED
from fastvae.data.sources.hub import place_of
from fastvae.data.training_set import TrainingSet, open_training_set
from fastvae.distributed.ranks import ALONE, Ranks
from fastvae.errors import UsageError
from fastvae.files.places import resolved
from fastvae.machine import choose_compile, choose_cuda_graph, choose_device, choose_precision
from fastvae.models.stages import count_stages
from fastvae.objectives import OBJECTIVES, Objective, Update, name_of
from fastvae.train.kept_memory import keep_freed_memory
from fastvae.train.noise_seed import noise_seed
from fastvae.train.order import BatchOrder
from fastvae.train.step import Step
from fastvae.train.weight_average import WeightAverage

_logger = logging.getLogger("fastvae")


class Training(NamedTuple):
    """An objective on its device, its optimisers, its step and its noise generator."""

    objective: Objective
    updates: dict[str, Update]
    step: Step
    noise: torch.Generator


def resolve(config: Config) -> tuple[Config, dict[str, str]]:
    """Replaces "auto" by this machine's choice, so that a resumed run uses the same, and makes paths absolute.

    The number of stages becomes the one that follows from the image size, if none is given.

    `open_data` resolves `loader`, which depends on the data. `resident` stays "auto", since it changes no result.

    Returns:
        The resolved config, and the reason for each choice by field name.

    Raises:
        UsageError: the critic's share is to be held and never measured.
    """
    if getattr(config.objective, "critic", None) == "held" and not config.train.balance_every:
        raise UsageError("critic held steers by what it measures: balance-every must be 1 or more; got 0")
    device = choose_device(config.train.device)
    precision = choose_precision(config.train.precision, device)
    compiled = choose_compile(config.train.compile, device)
    graph = choose_cuda_graph(config.train.cuda_graph, device)
    train = replace(
        config.train,
        device=device.type,
        precision=precision.value,
        compile=compiled.value,
        cuda_graph=graph.value,
    )
    # Not "by the size", so that the run's files say how many there are.
    model = replace(config.model, stages=count_stages(config.model.image_size, config.model.stages))
    config = _with_absolute_paths(config)
    reasons = {"precision": precision.reason, "compile": compiled.reason, "cuda_graph": graph.reason}
    _logger.info("precision %s: %s", precision.value, precision.reason)
    return replace(config, model=model, train=train), reasons


def _with_absolute_paths(config: Config) -> Config:
    """Relative paths made absolute, since the run may be resumed from another working directory."""
    data = config.data if config.data == EMBEDDED else str(place_of(config.data))
    vgg = getattr(config.objective, "vgg", None)
    if vgg is None or not resolved(vgg).is_file():  # a name, such as caffe or random
        return replace(config, data=data)
    return replace(config, data=data, objective=replace(config.objective, vgg=str(resolved(vgg))))


def open_data(config: Config, ranks: Ranks = ALONE) -> tuple[Config, TrainingSet, BatchOrder]:
    """The images of a run and the order of its batches.

    Args:
        config: resolved.
        ranks: the processes that share a step.

    Returns:
        The config with its `loader` resolved too: another one may leave out other images, which changes the order in
        which a resumed run sees them. The images and the order.

    Raises:
        UsageError, FastvaeError: see `open_training_set` and `BatchOrder`.
    """
    train = config.train
    images = open_training_set(
        config.data,
        image_size=config.model.image_size,
        loader=train.loader,
        device=torch.device(train.device),
        batch_size=train.batch_size,
        workers=max(1, decoding_threads(None) // ranks.local_size),
    )
    config = replace(config, train=replace(train, loader=images.kind))
    order = BatchOrder(
        len(images.train), train.batch_size, train.seed, flip=train.flip, rank=ranks.rank, ranks=ranks.size
    )
    return config, images, order


def build(config: Config, ranks: Ranks = ALONE) -> Training:
    """Networks on the device, initialised from the seed, with optimisers and step. The config is resolved.

    Every rank has the same networks, and noise of its own.

    Raises:
        UsageError: the images are too small for the loss network.
        FastvaeError: the loss network's weights cannot be loaded.
    """
    device = torch.device(config.train.device)
    _, objective_class = OBJECTIVES[name_of(config.objective)]
    bf16 = config.train.precision == "bf16"
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True  # the shapes of a run never change
    else:
        keep_freed_memory()
    with _first_speaks(ranks):
        loss_network = _loss_network(config, objective_class.taps(config.objective))
    if bf16 and loss_network is not None:
        loss_network.round_weights_(torch.bfloat16)
    # A separate generator is not enough: torch's initialisers use the global one.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.train.seed)
        objective = objective_class(config.objective, config.model, loss_network)
    objective.to(device)
    objective.train()
    updates = objective.updates(config.train.lr)
    compiled = config.train.compile == "on"
    average = None
    if config.train.ema:
        average = WeightAverage(objective, updates, config.train.ema, compile_weight=compiled)
    step = Step(
        objective,
        updates,
        device=device,
        bf16=bf16,
        average=average,
        compile_passes=compiled,
        ranks=ranks,
    )
    noise = torch.Generator(device).manual_seed(noise_seed(config.train.seed, ranks.rank))
    return Training(objective, updates, step, noise)


@contextmanager
def _first_speaks(ranks: Ranks) -> Iterator[None]:
    """Only rank 0 logs what all would log alike."""
    level = _logger.level
    if not ranks.first:
        _logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        _logger.setLevel(level)


def _loss_network(config: Config, taps: tuple[str, ...]):
    if not taps:
        return None
    from fastvae.lossnet import load_loss_network

    network = load_loss_network(config.objective.vgg, taps=taps)
    network.check_takes(config.model.image_size)
    return network
