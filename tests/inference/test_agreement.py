"""The measure that decides whether results may be kept: it must see everything that is wrong."""

import math

import pytest
import torch

from fastvae.inference.agreement import largest_error

RIGHT = [torch.tensor([1.0, -4.0]), torch.tensor([[0.5]])]


def test_it_is_the_worst_result_s_of_its_largest_value():
    assert largest_error(RIGHT, RIGHT) == 0
    assert largest_error([RIGHT[0] + 0.4, RIGHT[1] * 1.01], RIGHT) == pytest.approx(0.1)
    assert largest_error([RIGHT[0] + 0.4, RIGHT[1] * 2], RIGHT) == pytest.approx(1)


@pytest.mark.parametrize("at", [0, 1])
@pytest.mark.parametrize("side", [0, 1])
def test_a_nan_is_never_lost(at, side):
    sides = [[x.clone() for x in RIGHT] for _ in range(2)]
    sides[side][at].view(-1)[0] = math.nan
    assert math.isnan(largest_error(*sides))
    sides[1 - side][at].view(-1)[0] = math.nan
    assert math.isnan(largest_error(*sides))


def test_nothing_infinite_passes():
    for value in (math.inf, -math.inf):
        wrong = [torch.tensor([1.0, value]), RIGHT[1]]
        for found, expected in ((wrong, RIGHT), (RIGHT, wrong), (wrong, wrong)):
            assert not largest_error(found, expected) <= 1e30


def test_shapes_zeros_and_empty_results():
    assert largest_error([RIGHT[0][None]], RIGHT[:1]) == math.inf
    zeros = [torch.zeros(3)]
    assert largest_error(zeros, zeros) == 0 and largest_error([torch.full((3,), 1e-30)], zeros) == math.inf
    assert largest_error([torch.zeros(0, 3)], [torch.zeros(0, 3)]) == 0
