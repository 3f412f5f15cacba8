"""What files are taken for the Inception network, and what is made of the images."""

import numpy as np
import pytest
import torch

from fastvae.errors import FastvaeError
from fastvae.evaluate import download
from fastvae.evaluate.inception import Inception, enlarge
from fastvae.files.downloads import sha256_of
from tests.evaluate import standins

CPU = torch.device("cpu")


pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.load` is deprecated")  # by the test's own


def pixels(count: int = 3, size: int = 32) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def enlarged_by_hand(image: np.ndarray, side: int) -> np.ndarray:
    """[H, W] -> [side, side]: output i lies at input i H / side, interpolated along one axis and then the other."""

    def along_rows(lines: np.ndarray) -> np.ndarray:
        size = lines.shape[1]
        return np.stack([np.interp(np.arange(side) * size / side, np.arange(size), line) for line in lines])

    return along_rows(along_rows(image).T).T


def test_the_hand_itself():
    """Two pixels enlarged to four: at 0, 0.5, 1 and 1.5, of which the last lies behind the last pixel."""
    np.testing.assert_allclose(enlarged_by_hand(np.array([[0.0, 8.0], [0.0, 8.0]]), 4), [[0, 4, 8, 8]] * 4)


@pytest.mark.parametrize("height, width, side", [(5, 7, 17), (8, 8, 29), (11, 11, 6), (4, 4, 4)])
def test_enlarging_is_tensorflows(height, width, side):
    image = np.random.default_rng(1).uniform(0, 255, (height, width))
    found = enlarge(torch.from_numpy(image)[None, None], side)[0, 0]
    np.testing.assert_allclose(found, enlarged_by_hand(image, side), atol=1e-9)


def test_the_standard_file_gives_features_and_probabilities_without_bias(classifier):
    network = Inception(classifier, CPU)
    features, probabilities = network(pixels(7))
    module = torch.jit.load(classifier)
    x = torch.from_numpy(pixels(7)).permute(0, 3, 1, 2)
    with torch.inference_mode():
        np.testing.assert_allclose(features, module(x, return_features=True), rtol=1e-5)
        np.testing.assert_allclose(probabilities, module(x, no_output_bias=True), rtol=1e-3, atol=1e-7)
        assert np.abs(probabilities - module(x).numpy()).max() > 0.01  # the bias would be seen
    assert probabilities.shape == (7, 1008) and network.known and network.why_no_score is None


def test_a_classifier_under_another_name_is_asked_itself(tmp_path, monkeypatch):
    path = tmp_path / "other.pt"
    standins.save(standins.OtherwiseNamed(), path)
    monkeypatch.setattr(download, "SHA256", sha256_of(path))
    _, probabilities = Inception(path, CPU)(pixels())
    expected = torch.jit.load(path)(torch.from_numpy(pixels()).permute(0, 3, 1, 2), no_output_bias=True)
    np.testing.assert_allclose(probabilities, expected.detach(), rtol=1e-5)


def test_features_alone_get_enlarged_images_and_give_no_score(features_alone):
    network = Inception(features_alone, CPU)
    features, probabilities = network(pixels(5))
    large = np.stack([[enlarged_by_hand(image[..., c].astype(float), 299) for c in range(3)] for image in pixels(5)])
    expected = torch.nn.functional.adaptive_avg_pool2d(torch.from_numpy((large - 128) / 128), [2, 4]).flatten(1)
    np.testing.assert_allclose(features, expected, atol=1e-5)
    assert probabilities is None and "not the standard file" in network.why_no_score and not network.known


def test_another_networks_probabilities_are_no_inception_score(classifier, monkeypatch):
    monkeypatch.setattr(download, "SHA256", "0" * 64)
    network = Inception(classifier, CPU)
    assert network(pixels())[1] is None and network.why_no_score and not network.known


def test_wrong_files_are_named(tmp_path):
    class Wrong(standins.FeaturesAlone):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.mean([2, 3])

    class Breaks(standins.FeaturesAlone):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x @ x[:, :1, :3]

    standins.save(Wrong(), tmp_path / "wrong.pt")
    standins.save(Breaks(), tmp_path / "breaks.pt")
    torch.save({"weight": torch.zeros(3)}, tmp_path / "weights.pt")
    (tmp_path / "text.pt").write_text("no program")
    for name, words in {
        "wrong.pt": r"returns \[2, 3\] for two images",
        "breaks.pt": "is not an Inception network",
        "weights.pt": "is not a TorchScript file",
        "text.pt": "is not a TorchScript file",
        "missing.pt": "cannot be read: No such file",
        ".": "cannot be read: .* is not a regular file",
    }.items():
        with pytest.raises(FastvaeError, match=words):
            Inception(tmp_path / name, CPU)
