"""CITATION.cff cites this version, and the paper."""

import tomllib

import yaml  # huggingface_hub, of the extra `hub`, brings it

from fastvae.version import __version__
from tests.pages import ROOT

CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text())
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_it_says_what_the_format_asks_for():
    assert CITATION["cff-version"] == "1.2.0"
    assert all(isinstance(CITATION[field], str) for field in ("message", "title", "version", "license"))
    assert CITATION["type"] == "software" and CITATION["authors"] == [{"name": "The fastvae developers"}]
    # GitHub would show it in place of this software.
    assert "preferred-citation" not in CITATION


def test_the_paper_is_a_reference():
    (paper,) = CITATION["references"]
    assert paper["type"] == "article" and paper["journal"] == "Neurocomputing" and paper["year"] == 2019
    assert [author["family-names"] for author in paper["authors"]] == ["Hou", "Sun", "Shen", "Qiu"]
    assert paper["title"].startswith("Improving Variational Autoencoder with Deep Feature Consistent")


def test_there_is_one_version_and_one_license():
    assert CITATION["version"] == PROJECT["version"] == __version__
    assert CITATION["license"] == PROJECT["license"]
