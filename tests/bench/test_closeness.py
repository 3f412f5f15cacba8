"""The tolerance itself: it must accept rounding and refuse everything else."""

import pytest
import torch

from bench.measuring.closeness import assert_close


def test_accepts_rounding_in_the_same_dtype():
    exact = torch.randn(64, dtype=torch.float64)
    assert_close(exact.bfloat16(), exact.bfloat16(), exact)
    assert_close(exact.float(), exact.float(), exact)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("broken", ["plain", "exact", "terms"])
def test_refuses_to_compare_with_what_is_not_finite(broken, value):
    exact = torch.randn(64, dtype=torch.float64)
    given = {"plain": exact.float(), "exact": exact, "terms": exact.abs()}
    given[broken] = given[broken].clone().index_fill_(0, torch.tensor([5]), value)
    with pytest.raises(AssertionError, match=f"{broken} is not finite"):
        assert_close(exact.float(), **given)


@pytest.mark.parametrize("broken", ["value", "shape", "dtype", "nan"])
def test_refuses_what_is_not_rounding(broken):
    exact = torch.randn(64, dtype=torch.float64)
    x = exact.float()
    if broken == "value":
        x[3] += 1e-3
    elif broken == "nan":
        x[3] = float("nan")
    x = {"shape": x[1:], "dtype": x.double()}.get(broken, x)
    with pytest.raises(AssertionError):
        assert_close(x, exact.float(), exact)
