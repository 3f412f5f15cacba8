"""Ranges of options, and the error for a value out of range."""

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
    """Raises UsageError unless every named field is None or in its range; NaN is in no range."""
    for name, (holds, expected) in ranges.items():
        value = getattr(options, name)
        # Not math.isfinite, which raises for integers too large for a float.
        is_finite = value is None or abs(value) < math.inf
        if value is not None and not (is_finite and holds(value)):
            expected = expected if is_finite else f"{expected}, and a finite number"
            raise UsageError(f"{name.replace('_', '-')} must be {expected}; got {reprlib.repr(value)}")
