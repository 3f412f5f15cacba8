"""CONTRIBUTING.md leads newcomers through files and functions that exist."""

import ast
import re

import pytest

from tests.pages import ROOT, functions

PAGE = (ROOT / "CONTRIBUTING.md").read_text()
WALKS = {part.partition("\n")[0]: part for part in PAGE.split("\n### ")[1:]}


@pytest.mark.parametrize(("path", "name"), functions(PAGE))
def test_every_stop_exists(path, name):
    assert name in names_in(ROOT / path)


def names_in(path) -> set[str]:
    """The functions, classes, methods and constants of a module or class: name, Class.name."""
    names = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
            if isinstance(node, ast.ClassDef):
                names |= {f"{node.name}.{part.name}" for part in node.body if isinstance(part, ast.FunctionDef)}
    return names


def test_what_does_not_exist_is_seen():
    assert functions("`fastvae/vae.py: load` and `fastvae/vae.py: VAE.save`") == [
        ("fastvae/vae.py", "load"),
        ("fastvae/vae.py", "VAE.save"),
    ]
    assert {"load", "VAE.accelerate"} <= names_in(ROOT / "fastvae/vae.py")
    assert "VAE.save" not in names_in(ROOT / "fastvae/vae.py")


@pytest.mark.parametrize("title", WALKS)
def test_a_walk_has_ten_lines(title):
    assert [int(number) for number in re.findall(r"^(\d+)\. ", WALKS[title], re.MULTILINE)] == list(range(1, 11))
    steps = re.findall(r"^\d+\. .*", WALKS[title], re.MULTILINE)
    assert all(re.search(r"`[\w/]+\.py", step) for step in steps)


def test_there_are_three_walks():
    assert len(WALKS) == 3
