"""The pages that people read, and what they name: files, functions, commands."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = [
    README,
    ROOT / "CONTRIBUTING.md",
    ROOT / "fastvae" / "METHOD.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "bench" / "records").glob("*.md")),
]
# A file or folder of ours, with what is in it or without: fastvae/vae.py, bench/records/2026-11-25-cpu-step.json.
_PATH = re.compile(r"(?<![\w/.-])((?:fastvae|kernels|bench|tests|tools|docs)/[\w./-]*\w)")
# A module or what is in it: fastvae.kernels.provider.
_DOTTED = re.compile(r"(?<![\w/.])((?:fastvae|bench|tests|tools)(?:\.[A-Za-z_]\w*)+)")


def text_of(page: Path) -> str:
    """A page, with each paragraph in one line, so that nothing is hidden by where lines break."""
    return re.sub(r"(?<=[^\n])\n(?=[^\n])", " ", page.read_text())


def paths(text: str) -> set[str]:
    """The paths of this repository that a text names."""
    return set(_PATH.findall(text))


def dotted_names(text: str) -> set[str]:
    """The modules, functions and classes that a text names by their full names."""
    return {name for name in _DOTTED.findall(text) if not name.endswith((".py", ".md", ".fvae"))}


def functions(text: str) -> list[tuple[str, str]]:
    """What stands as `path/file.py: name` in a text, as (path, name)."""
    return re.findall(r"`([\w/]+\.py): ([\w.]+)`", text)


def python_blocks(page: Path) -> list[str]:
    """The examples in Python."""
    return re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)


def flags(text: str) -> set[str]:
    """The flags that a text names, without their dashes in front."""
    return set(re.findall(r"(?<![\w-])--([a-z][a-z0-9-]+)", text))
