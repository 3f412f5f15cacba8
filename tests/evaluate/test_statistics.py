"""What is kept of real images: for the same images by the same network alone, and only while it is whole."""

import os
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from fastvae.evaluate import statistics as statistics_module
from fastvae.evaluate.frechet import Gaussian
from fastvae.evaluate.statistics import Statistics, real_statistics
from fastvae.files.cache import cache_folder

FOUND = Statistics(Gaussian(4, np.arange(3.0), np.eye(3)), (2.0, 0.5))


@pytest.fixture
def passed(monkeypatch):
    """How often images were passed through the network."""
    calls = []
    monkeypatch.setattr(statistics_module, "statistics", lambda *_, **__: calls.append(1) or FOUND)
    return calls


def real(digest="d", device="cpu", images="i", chosen=(0, 1, 2, 3)) -> Statistics:
    network = SimpleNamespace(digest=digest, device=torch.device(device))
    packed = SimpleNamespace(header={"blocks": {"images": {"sha256": images}}}, images=np.zeros((9, 4, 4, 3), np.uint8))
    return real_statistics(network, packed, np.array(chosen), "reference")


def same(found: Statistics) -> bool:
    features = found.features
    return (features.mean == FOUND.features.mean).all() and found.score == FOUND.score and features.count == 4


def test_all_that_it_depends_on(passed, monkeypatch):
    assert same(real()) and same(real()) and len(passed) == 1
    for other in ({"digest": "e"}, {"device": "cuda"}, {"images": "j"}, {"chosen": (0, 1, 2, 4)}):
        real(**other)
    monkeypatch.setattr(torch, "__version__", "9.9")
    real()
    assert len(passed) == 6


def test_classes_that_lie_one_after_the_other_do_not_change_the_score(tmp_path, monkeypatch):
    monkeypatch.setenv("FASTVAE_CACHE", str(tmp_path))
    probabilities = np.repeat(np.eye(10, dtype=np.float32), 40, axis=0)  # each image surely of one of ten classes

    class Network:
        digest, device = "n", torch.device("cpu")

        def __call__(self, batch):
            return np.zeros((len(batch), 2), np.float32), probabilities[batch[:, 0, 0, :2].astype(int) @ [256, 1]]

    numbers = np.arange(400)
    images = np.zeros((400, 1, 1, 3), np.uint8)
    images[:, 0, 0, 0], images[:, 0, 0, 1] = numbers // 256, numbers % 256
    packed = SimpleNamespace(header={"blocks": {"images": {"sha256": "ordered"}}}, images=images)
    mean, deviation = real_statistics(Network(), packed, numbers, "reference").score
    assert mean > 8 and deviation < 1


def write(path, **changes):
    arrays = {"count": 4, "mean": np.arange(3.0), "covariance": np.eye(3), "score": np.array([2.0, 0.5])} | changes
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes()[:-30]),
        lambda path: write(path, mean=np.full(3, np.nan)),
        lambda path: write(path, covariance=np.eye(2)),
        lambda path: write(path, count=5),
        lambda path: write(path, count="x"),
        lambda path: write(path, score=np.zeros(3)),
        lambda path: write(path, score=np.zeros((2, 2))),
        lambda path: write(path, mean=None),
        lambda path: write(path, mean=np.array([object()] * 3)),
    ],
    ids=range(10),
)
def test_a_damaged_one_is_made_again(passed, spoil, caplog):
    real()
    (path,) = (cache_folder() / "inception").iterdir()
    spoil(path)
    assert same(real()) and same(real()) and len(passed) == 2 and "is damaged" in caplog.text


def test_a_cache_that_cannot_be_had(passed, tmp_path, monkeypatch, caplog):
    (tmp_path / "file").touch()
    monkeypatch.setenv("FASTVAE_CACHE", os.fspath(tmp_path / "file" / "cache"))
    assert same(real()) and "cannot be cached" in caplog.text
