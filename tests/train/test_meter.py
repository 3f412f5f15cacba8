"""Loss terms of several steps, read at once."""

import math

import pytest
import torch

from fastvae.errors import FastvaeError
from fastvae.train.meter import Meter


def record(meter: Meter, **terms: float) -> None:
    meter.record({name: torch.tensor(value) for name, value in terms.items()})
    meter.count(tuple(terms))


def test_means_over_the_steps_that_reported_a_term():
    meter = Meter(4, torch.device("cpu"))
    record(meter, kl=1.0, rec=10.0)
    record(meter, critic=5.0)
    record(meter, kl=3.0, rec=20.0)
    assert meter.read()[:4] == (3, {"kl": 2.0, "rec": 15.0, "critic": 5.0}, {}, None)
    assert meter.read()[:4] == (0, {}, {}, None)
    record(meter, kl=7.0)
    assert meter.read().means == {"kl": 7.0}


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_the_first_term_that_is_not_finite(value):
    meter = Meter(3, torch.device("cpu"))
    record(meter, kl=1.0, rec=2.0)
    record(meter, kl=1.0, rec=value)
    record(meter, kl=value, rec=value)
    index, name, found = meter.read().not_finite
    assert (index, name) == (1, "rec") and (found == value or math.isnan(found))


def test_bfloat16_terms_are_widened():
    meter = Meter(1, torch.device("cpu"))
    meter.record({"kl": torch.tensor(1.5, dtype=torch.bfloat16)})
    meter.count(("kl",))
    assert meter.read().means == {"kl": 1.5}


def test_too_many_terms():
    with pytest.raises(FastvaeError, match="at most 16 terms per step"):
        record(Meter(1, torch.device("cpu")), **{f"t{i}": 0.0 for i in range(17)})
