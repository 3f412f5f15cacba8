"""Options that have a new name. Their old names still work, as flags and in the config of an older run."""

import logging
from collections.abc import Sequence
from typing import Any

# Old -> new, as the fields are spelled. These are names of version 0.1; remove them after version 0.2.
_OPTIONS = {
    "first_long": "warmup_generator_steps",
    "long_round": "warmup_critic_steps",
    "long_every": "warmup_every",
    "other_data": "allow_other_data",
    "most": "limit",
}
# The same for the values of an option.
_VALUES = {"clipped": {"weights_but_norm": "weights_except_norm"}}
_logger = logging.getLogger("fastvae")


def renamed_flags(arguments: Sequence[str]) -> list[str]:
    """Command-line arguments with new names for old ones, each with a warning."""
    renamed, option = [], ""
    for argument in arguments:
        if argument.startswith("--"):
            flag, equals, value = argument.partition("=")
            option = _new_name(flag[2:].replace("-", "_"))
            if option != flag[2:].replace("-", "_"):
                flag = "--" + option.replace("_", "-")
            new = f"{flag}{equals}{_new_value(option, value)}"
        else:
            new = _new_value(option, argument)
        if new != argument:
            _logger.warning("%s is now called %s; the old name stops working after version 0.2", argument, new)
        renamed.append(new)
    return renamed


def renamed_config(config: dict[str, Any]) -> dict[str, Any]:
    """A config as plain JSON values, with new names for old ones in each of its sections."""
    return {name: _renamed_section(section) for name, section in config.items()}


def _renamed_section(section: Any) -> Any:
    if not isinstance(section, dict):
        return section
    named = {_new_name(name): value for name, value in section.items()}
    return {name: _new_value(name, value) for name, value in named.items()}


def _new_name(option: str) -> str:
    return _OPTIONS.get(option, option)


def _new_value(option: str, value: Any) -> Any:
    return _VALUES.get(option, {}).get(value, value) if isinstance(value, str) else value
