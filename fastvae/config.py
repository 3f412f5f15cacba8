"""What a run is made of. A recipe fills these in; every field is a flag of `fastvae train`."""

import dataclasses
import difflib
import json
import logging
import math
import reprlib
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar

import tyro

from fastvae.errors import FastvaeError, UsageError
from fastvae.reading import Malformed, conform, unknown_fields

Options = TypeVar("Options")
_logger = logging.getLogger("fastvae")


@dataclass(frozen=True)
class ModelConfig:
    """Shape of the networks."""

    image_size: int = 64  # pixels a side, a multiple of 16 up to 1024
    width: int = 32  # channels of the first stage, 1 to 1024; the next ones have 2, 4 and 8 times as many
    latent: int = 100  # dimensions of z, 1 to 65536

    def __post_init__(self) -> None:
        if not 16 <= self.image_size <= 1024 or self.image_size % 16:
            raise UsageError(f"image-size must be a multiple of 16 up to 1024, e.g. 64 or 32; got {self.image_size}")
        require(self, width=between(1, 1024), latent=between(1, 65536))


@dataclass(frozen=True)
class TrainConfig:
    """How long, how fast, on what, and what is written on the way."""

    epochs: int = 5  # passes over the training images, > 0
    steps: int | None = None  # stop after this many batches instead, > 0
    minutes: float | None = None  # stop earlier, after this many minutes of training, > 0
    batch_size: int = 64  # images a step, >= 2 because of the batch statistics
    lr: float = 5e-4  # Adam's initial learning rate, > 0
    lr_decay: float = 0.5  # factor on every learning rate after each epoch, in (0, 1]
    seed: int = 0  # of weights, order and noise, >= 0
    device: Literal["auto", "cpu", "cuda"] = "auto"  # auto: CUDA where there is one
    precision: Literal["auto", "fp32", "bf16"] = "auto"  # of convolutions and linear layers; auto: see `fastvae info`
    compile: Literal["auto", "on", "off"] = "auto"  # torch.compile the step; auto: see `fastvae info`
    cuda_graph: Literal["auto", "on", "off"] = "auto"  # replay the step as one CUDA graph; auto: on a GPU
    # who decodes a folder of pictures: dali or pillow while training, packed once before; auto: dali where there are a
    # GPU, DALI and JPEGs, else packed
    loader: Literal["auto", "dali", "pillow", "packed"] = "auto"
    resident: Literal["auto", "on", "off"] = "auto"  # keep all images on the device; auto: on a GPU that has the room
    log_every: int = 10  # steps between two lines of stats.jsonl, > 0
    balance_every: int = 100  # steps between two measurements of the critic's share of the gradient; 0: never
    evaluate_every: int = 500  # steps between two evaluations on held-out images; 0: only before and after
    pictures_every: int = 500  # steps between two picture grids; 0: only at the end
    checkpoint_every: int = 500  # steps between two checkpoints; 0: only at the end
    keep_checkpoints: int = 2  # newest checkpoints that are kept, > 0
    held_out: int = 256  # held-out images that an evaluation looks at, > 0

    def __post_init__(self) -> None:
        require(
            self,
            epochs=between(1, 10**6),
            steps=between(1, 10**9),
            minutes=above(0),
            batch_size=between(2, 65536),
            lr=above(0),
            seed=between(0, 2**63 - 1),
            log_every=between(1, 10**5),
            balance_every=at_least(0),
            evaluate_every=at_least(0),
            pictures_every=at_least(0),
            checkpoint_every=at_least(0),
            keep_checkpoints=at_least(1),
            held_out=at_least(1),
        )
        if not 0 < self.lr_decay <= 1:
            raise UsageError(f"lr-decay must be above 0 and at most 1; got {self.lr_decay}")


@dataclass(frozen=True)
class Config(Generic[Options]):
    """A whole run."""

    recipe: tyro.conf.Suppress[str]  # the recipe this came from
    objective: Options  # what is trained and how; its class names the objective
    data: str = "faces"  # "faces", the embedded data set; a packed file; or a folder of images
    model: ModelConfig = field(default_factory=ModelConfig)
    train: TrainConfig = field(default_factory=TrainConfig)


def at_least(bound: float):
    """A range for `require`: bound <= value."""
    return (lambda value: value >= bound), f"{bound} or more"


def between(low: float, high: float):
    """A range for `require`: low <= value <= high."""
    return (lambda value: low <= value <= high), f"from {low} to {high}"


def above(bound: float):
    """A range for `require`: bound < value."""
    return (lambda value: value > bound), f"more than {bound}"


def require(options: Any, **ranges) -> None:
    """Raises UsageError unless every named field is None or in its range; not-a-number is in none."""
    for name, (holds, words) in ranges.items():
        value = getattr(options, name)
        # Not math.isfinite, which raises where an integer is too large for a float.
        is_finite = value is None or abs(value) < math.inf
        if value is not None and not (is_finite and holds(value)):
            words = words if is_finite else f"{words}, and a finite number"
            raise UsageError(f"{name.replace('_', '-')} must be {words}; got {reprlib.repr(value)}")


def to_json(config: Config) -> dict[str, Any]:
    """Config -> plain JSON values; the objective is named by its key in `OBJECTIVES`."""
    from fastvae.objectives import name_of

    name = name_of(config.objective)
    values = {**dataclasses.asdict(config), "objective": {"name": name, **dataclasses.asdict(config.objective)}}
    return json.loads(json.dumps(values))  # JSON has no tuples


def from_json(values: Any) -> Config:
    """The inverse of `to_json`, for a run that goes on.

    Fields of `train` that this version does not know are left out, with a warning; they are a later version's.

    Raises:
        FastvaeError: a field is missing, of another type or out of its range, or the objective or one of its options or
            the model's is not known to this version.
    """
    from fastvae.objectives import OBJECTIVES

    try:
        values = conform(values, dict[str, Any], "the config")
        objective = conform(values.get("objective"), dict[str, Any], "objective")
        name = conform(objective.pop("name", None), str, "objective.name")
        if name not in OBJECTIVES:
            raise Malformed(f"there is no objective {name!r} in this version{suggest(name, OBJECTIVES)}")
        options = OBJECTIVES[name][0]
        later = [("objective", objective, options), ("model", values.get("model"), ModelConfig)]
        for part, fields, known in later:
            if unknown := unknown_fields(fields, known):
                raise Malformed(f"{part} has a field {unknown[0]!r}, which this version does not know")
        config = Config(
            recipe=conform(values.get("recipe"), str, "recipe"),
            data=conform(values.get("data"), str, "data"),
            objective=conform(objective, options, "objective"),
            model=conform(values.get("model"), ModelConfig, "model"),
            train=conform(values.get("train"), TrainConfig, "train"),
        )
    except (Malformed, UsageError) as error:
        raise FastvaeError(f"{error}: was this run made by a later version, or edited?") from error
    if unknown := unknown_fields(values["train"], TrainConfig):
        _logger.warning("left out of the config, as this version does not know it: train.%s", ", train.".join(unknown))
    return config


def model_from_json(values: dict[str, Any]) -> ModelConfig:
    """The part of `to_json`'s result that says how to build the networks; what a later version added is passed over.

    Raises:
        FastvaeError: it is missing, of another type, or out of its range.
    """
    try:
        return conform(values.get("model"), ModelConfig, "model")
    except (Malformed, UsageError) as error:
        raise FastvaeError(f"the config does not say how to build the model ({error}): was it edited?") from error


def suggest(name: str, known) -> str:
    """ ", did you mean ...?" with the nearest known name, or all of them where none is near."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f", did you mean {near[0]!r}?" if near else f"; there are: {', '.join(known)}"
