"""The sizes of a run's networks, from its config as JSON.

Not in `config_json`, which knows all objectives: importing those takes longer than loading a model.
"""

from typing import Any

from fastvae.config import ModelConfig
from fastvae.errors import FastvaeError, UsageError
from fastvae.files.reading import Malformed, conform

# What models have whose config does not say it: it was written when there was no choice.
_STAGES_BEFORE = 4


def model_from_json(values: dict[str, Any]) -> ModelConfig:
    """The `model` section of `to_json`'s result; fields that a later version added are ignored.

    Raises:
        FastvaeError: it is missing, of the wrong type, or out of range.
    """
    model = values.get("model")
    if isinstance(model, dict):
        model = {"stages": _STAGES_BEFORE, **model}
    try:
        return conform(model, ModelConfig, "model")
    except (Malformed, UsageError) as error:
        raise FastvaeError(f"the config does not say how to build the model ({error}): was it edited?") from error
