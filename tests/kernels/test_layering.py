"""The ops must stay usable alone: they import torch, triton and the standard library, nothing of fastvae."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
KERNELS = sorted((ROOT / "kernels").rglob("*.py"))
SOURCES = sorted(
    p for folder in ("fastvae", "kernels", "tests", "bench", "tools") for p in (ROOT / folder).rglob("*.py")
)


def imported(path: Path) -> set[str]:
    """Top-level names of a file's absolute imports."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("path", KERNELS, ids=lambda p: p.name)
def test_kernels_import_nothing_of_fastvae(path):
    assert imported(path) <= {"torch", "triton", *sys.stdlib_module_names}


def test_nobody_imports_the_bare_name():
    assert KERNELS
    assert [p for p in SOURCES if "kernels" in imported(p)] == []
