"""Scores by hand, and classifiers on data whose answers are known."""

import numpy as np
import pytest
from sklearn.svm import LinearSVC

from fastvae.attributes import Splits, recognise
from fastvae.attributes.recognise import accuracy, balanced_accuracy, majority_accuracy
from fastvae.errors import FastvaeError


def boolean(text: str) -> np.ndarray:
    return np.array([letter == "1" for letter in text])


def test_scores_by_hand():
    truth, predicted = boolean("1100000000"), boolean("1010000000")
    assert accuracy(predicted, truth) == pytest.approx(0.8)
    assert balanced_accuracy(predicted, truth) == pytest.approx((1 / 2 + 7 / 8) / 2)
    assert balanced_accuracy(boolean("0000000000"), truth) == 0.5


@pytest.mark.parametrize("train, expected", [("0001", 0.8), ("0111", 0.2), ("0011", 0.2)])
def test_the_baseline_takes_its_majority_from_the_training_images(train, expected):
    assert majority_accuracy(boolean(train), boolean("1100000000")) == pytest.approx(expected)


@pytest.fixture
def data():
    """300 points in five dimensions: one of them tells the first attribute, on another scale; the second is chance."""
    random = np.random.Generator(np.random.PCG64(1))
    features = random.standard_normal((300, 5))
    clear = random.permutation(300) < 90
    features[:, 2] += 6 * clear
    features = (features * [1, 1e-4, 1e3, 1, 1] + [0, 5, 0, 0, 0]).astype(np.float32)
    features[:, 4] = 7  # a latent variable that is not in use
    chance = random.permutation(300) < 90
    attributes = np.stack([clear, chance, np.ones(300, bool), np.arange(300) < 200], 1).astype(np.uint8)
    splits = Splits(np.arange(200), np.arange(200, 250), np.arange(250, 300), "")
    return features, attributes, ("clear", "chance", "always", "not in the test"), splits


def test_what_can_be_told_apart_and_what_cannot(data):
    seen = []
    found = recognise(*data, jobs=2, done=lambda result: seen.append(result.name))
    clear, chance = found.results
    assert (clear.name, chance.name) == ("clear", "chance") and sorted(seen) == ["chance", "clear"]
    assert clear.accuracy >= 0.98 and clear.balanced_accuracy >= 0.97 and clear.converged
    assert abs(chance.balanced_accuracy - 0.5) < 0.15
    test = data[1][250:, 0]
    assert clear.test_share == pytest.approx(test.mean())
    assert clear.majority_accuracy == pytest.approx(1 - test.mean())
    assert found.average("accuracy") == pytest.approx((clear.accuracy + chance.accuracy) / 2)
    assert found.excluded == {"always": "every training image has it", "not in the test": "every training image has it"}


def test_an_attribute_that_only_the_test_images_lack(data):
    features, attributes, names, splits = data
    attributes[:, 3] = np.arange(300) < 100
    found = recognise(features, attributes, names, splits)
    assert found.excluded["not in the test"] == "no test image has it"


def test_c_is_chosen_apart_and_the_smallest_at_a_tie(data):
    features, attributes, _, splits = data
    train, choose, test = (features[part] for part in (splits.train, splits.choose, splits.test))
    mean, deviation = train.mean(0, np.float64), train.std(0, np.float64)
    deviation[4] = 1
    grid = (1e-5, 1e-3, 1.0)
    fits = [LinearSVC(C=c, dual=False).fit((train - mean) / deviation, attributes[splits.train, 1] == 1) for c in grid]
    right = [fit.score((choose - mean) / deviation, attributes[splits.choose, 1] == 1) for fit in fits]
    best = max(range(3), key=lambda i: (right[i], -i))
    chosen = recognise(features, attributes[:, 1:2], ("chance",), splits, grid=grid[::-1]).results[0]
    assert chosen.c == grid[best] and chosen.choosing_accuracy == pytest.approx(right[best])
    expected = fits[best].score((test - mean) / deviation, attributes[splits.test, 1] == 1)
    assert chosen.accuracy == pytest.approx(expected)
    tied = recognise(features, attributes[:, :1], ("clear",), splits, grid=(1.0, 0.1, 0.01)).results[0]
    assert tied.choosing_accuracy == 1 and tied.c == 0.01


def test_features_of_a_diverged_run(data):
    data[0][7, 1] = np.nan
    with pytest.raises(FastvaeError, match="did the training of the run diverge"):
        recognise(*data)
