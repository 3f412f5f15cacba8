"""Stand-ins where the Inception network is expected."""

import pytest

from fastvae.evaluate import download, inception
from fastvae.files.downloads import sha256_of
from tests.evaluate import standins


@pytest.fixture(autouse=True)
def _small(monkeypatch, tmp_path):
    monkeypatch.setattr(inception, "FEATURES", standins.FEATURES)
    monkeypatch.setenv("FASTVAE_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def classifier(tmp_path, monkeypatch):
    """A file that is taken for the standard one."""
    path = tmp_path / "classifier.pt"
    standins.save(standins.Classifier(), path)
    monkeypatch.setattr(download, "SHA256", sha256_of(path))
    return path


@pytest.fixture
def features_alone(tmp_path):
    path = tmp_path / "features.pt"
    standins.save(standins.FeaturesAlone(), path)
    return path
