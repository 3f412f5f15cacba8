"""The Inception Score of cases that can be done by hand."""

import numpy as np
import pytest

from fastvae.evaluate.inception_score import inception_score


def test_sure_and_diverse_is_the_number_of_classes():
    mean, std = inception_score(np.tile(np.eye(4, dtype=np.float32), (10, 1)))
    assert mean == pytest.approx(4) and std == pytest.approx(0)


@pytest.mark.parametrize("row", [[1.0, 0, 0], [0.2, 0.3, 0.5]], ids=["always one class", "never sure"])
def test_all_alike_is_one(row):
    assert inception_score(np.tile(row, (30, 1))) == pytest.approx((1, 0))


def test_two_images_by_hand():
    # p(y) = (0.5, 0.5); KL = 0.9 ln 1.8 + 0.1 ln 0.2 for both
    mean, _ = inception_score(np.array([[0.9, 0.1], [0.1, 0.9]]), splits=1)
    assert mean == pytest.approx(1.8**0.9 * 0.2**0.1)


def test_parts_are_consecutive_and_have_marginals_of_their_own():
    sure = np.eye(2)
    mean, std = inception_score(np.concatenate([sure, sure[[0, 0]]]), splits=2)  # scores 2 and 1
    assert (mean, std) == pytest.approx((1.5, 0.5))
