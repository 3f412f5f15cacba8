"""A run's config as plain JSON values, for config.json and checkpoint metadata."""

import dataclasses
import json
import logging
from typing import Any

from fastvae.config import Config, InitialWeights, ModelConfig, TrainConfig
from fastvae.errors import FastvaeError, UsageError, suggest
from fastvae.files.reading import Malformed, conform, unknown_fields
from fastvae.objectives import OBJECTIVES, name_of
from fastvae.renamed import renamed_config
from fastvae.train.model_json import model_from_json

_logger = logging.getLogger("fastvae")


def to_json(config: Config) -> dict[str, Any]:
    """Config -> plain JSON values; the objective is named by its key in `OBJECTIVES`."""
    name = name_of(config.objective)
    values = {**dataclasses.asdict(config), "objective": {"name": name, **dataclasses.asdict(config.objective)}}
    return json.loads(json.dumps(values))  # JSON has no tuples


def default_options(name: str) -> dict[str, Any]:
    """An objective's options by default, as `to_json` has them; `name` is its key in `OBJECTIVES`."""
    return json.loads(json.dumps(dataclasses.asdict(OBJECTIVES[name][0]())))


def from_json(values: Any) -> Config:
    """The inverse of `to_json`. Old names of renamed options are accepted.

    Fields of `train` that this version does not know, since a later version wrote them, are ignored with a warning.

    Raises:
        FastvaeError: a field is missing, of the wrong type or out of range, or this version does not know the objective
            or a field of `objective` or `model`.
    """
    try:
        values = renamed_config(conform(values, dict[str, Any], "the config"))
        objective = conform(values.get("objective"), dict[str, Any], "objective")
        name = conform(objective.pop("name", None), str, "objective.name")
        if name not in OBJECTIVES:
            raise Malformed(f"this version has no objective {name!r}{suggest(name, OBJECTIVES)}")
        options = OBJECTIVES[name][0]
        for section, fields, known in (
            ("objective", objective, options),
            ("model", values.get("model"), ModelConfig),
        ):
            if unknown := unknown_fields(fields, known):
                raise Malformed(f"{section} has a field {unknown[0]!r}, which this version does not know")
        config = Config(
            recipe=conform(values.get("recipe"), str, "recipe"),
            data=conform(values.get("data"), str, "data"),
            objective=conform(objective, options, "objective"),
            model=model_from_json(values),
            train=conform(values.get("train"), TrainConfig, "train"),
            initial_weights=conform(values.get("initial_weights"), InitialWeights | None, "initial_weights"),
        )
    except (Malformed, UsageError) as error:
        raise FastvaeError(f"{error}: was this run made by a later version, or edited?") from error
    if unknown := unknown_fields(values["train"], TrainConfig):
        _logger.warning(
            "ignoring fields of the config that this version does not know: train.%s", ", train.".join(unknown)
        )
    return config
