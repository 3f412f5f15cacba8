"""Ranges of options, and the error of one that is out of its range."""

import math
import reprlib
from typing import Any

from fastvae.errors import UsageError


def at_least(bound: float):
    """A range for `require`: bound <= value."""
    return (lambda value: value >= bound), f"{bound} or more"


def between(low: float, high: float):
    """A range for `require`: low <= value <= high."""
    return (lambda value: low <= value <= high), f"from {low} to {high}"


def above(bound: float):
    """A range for `require`: bound < value."""
    return (lambda value: value > bound), f"more than {bound}"


def up_to(high: float):
    """A range for `require`: 0 < value <= high."""
    return (lambda value: 0 < value <= high), f"more than 0 and at most {high}"


def require(options: Any, **ranges) -> None:
    """Raises UsageError unless every named field is None or in its range; not-a-number is in none."""
    for name, (holds, words) in ranges.items():
        value = getattr(options, name)
        # Not math.isfinite, which raises where an integer is too large for a float.
        is_finite = value is None or abs(value) < math.inf
        if value is not None and not (is_finite and holds(value)):
            words = words if is_finite else f"{words}, and a finite number"
            raise UsageError(f"{name.replace('_', '-')} must be {words}; got {reprlib.repr(value)}")
