"""The README and the pages that it links to may only promise what is there."""

import importlib
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from fastvae import VAE
from fastvae.cli import COMMANDS
from fastvae.recipes import RECIPES
from tests.pages import PAGES, README, ROOT, dotted_names, flags, paths, python_blocks, text_of

USAGE = ROOT / "docs" / "usage.md"
TEXT = README.read_text()
TORCHRUN = {"nproc-per-node", "nnodes", "node-rank", "master-addr", "master-port", "max-restarts"}
SLURM = {"nodes", "ntasks-per-node", "gpus-per-node", "signal"}
FOREIGN_FLAGS = {"benchmark-compare", "help", *TORCHRUN, *SLURM}  # the first of pytest-benchmark, help of every command
LONGEST = 150  # lines of README.md, which a newcomer reads to the end


def test_it_is_short():
    assert len(TEXT.splitlines()) <= LONGEST


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_is_named(name):
    assert f"`{name}`" in TEXT


def test_every_command_is_shown_and_every_shown_command_exists():
    assert shown_commands(README) == set(COMMANDS)
    for page in PAGES:
        assert shown_commands(page) <= set(COMMANDS), page


def shown_commands(page: Path) -> set[str]:
    """The commands of the lines that can be copied."""
    return set(re.findall(r"^    fastvae (\w+)", page.read_text(), re.MULTILINE))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_pictures_exist(page):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        if not target.startswith("https://"):
            assert (page.parent / target).is_file(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_into_pages_lead_to_headings(page):
    for target, anchor in re.findall(r"\]\(([^)#:]*)#([^)]+)\)", page.read_text()):
        assert anchor in anchors((page.parent / target) if target else page), f"{target}#{anchor}"


def anchors(page: Path) -> set[str]:
    """The names that GitHub gives a page's headings."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_the_pages_name_exists(page):
    text = text_of(page)
    for path in paths(text):
        assert (ROOT / path).exists(), path
    for name in dotted_names(text):
        assert exists(name), name


@pytest.fixture(scope="module")
def sources() -> str:
    """All that declares flags: fields of dataclasses for tyro, strings for argparse and pytest."""
    files = (path for folder in ("fastvae", "bench", "tools") for path in (ROOT / folder).rglob("*.py"))
    return "\n".join(path.read_text() for path in (*files, ROOT / "tests/conftest.py", ROOT / "tests/strict_skips.py"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_flags_exist(page, sources):
    for flag in flags(text_of(page)) - FOREIGN_FLAGS:
        field = re.search(rf"^    {flag.replace('-', '_')}: ", sources, re.MULTILINE)
        assert field or f'"--{flag}"' in sources, f"--{flag}"


def exists(name: str) -> bool:
    """Whether there is a module of that name, or something of that name in one."""
    module, _, rest = name, "", ""
    while not is_module(module):
        module, _, last = module.rpartition(".")
        rest = f"{last}.{rest}" if rest else last
        if not module:
            return False
    found = importlib.import_module(module) if rest else None
    for part in rest.split(".") if rest else ():
        if not hasattr(found, part):
            return False
        found = getattr(found, part)
    return True


def is_module(name: str) -> bool:
    """Whether a file or folder of ours is imported under this name."""
    path = ROOT / name.replace(".", "/")
    return path.is_dir() or path.with_suffix(".py").is_file()


def test_what_does_not_exist_is_seen():
    assert exists("fastvae.kernels.provider") and exists("fastvae.data.packed") and exists("bench.step.gate")
    assert not exists("fastvae.kernels.no_such_op") and not exists("fastvae.no_such_module.provider")
    text = "`fastvae/no_such_file.py` and fastvae.vae.VAE.no_such_method; runs/faces/model.py is a reader's own"
    assert paths(text) == {"fastvae/no_such_file.py"} and not (ROOT / "fastvae/no_such_file.py").exists()
    assert [exists(name) for name in dotted_names(text)] == [False]


def test_the_layout_is_the_real_one():
    shown = re.findall(r"^    (\w+)/ ", TEXT, re.MULTILINE)
    for folder in shown:
        assert (ROOT / folder).is_dir(), folder
    assert {path.parent.name for path in ROOT.glob("*/*.py")} <= set(shown)


def test_the_folder_of_a_run_is_the_real_one(run):
    blocks = re.findall(r"^```\w*\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)
    (tree,) = (block for block in blocks if "stats.jsonl" in block)
    names = re.findall(r"── ([\w.-]+)", tree)
    assert len(names) == 10
    real = {re.sub(r"\d{8}", "00000500", path.name) for path in run.rglob("*")}
    for name in names:
        assert name in real or name == "tensorboard", name
    assert {path.name for path in run.iterdir()} - set(names) <= {".lock", "tensorboard"}
    for picture in re.findall(r"[\w-]+\.png", tree):
        assert picture in real, picture


def test_the_lines_of_python_work(run, tmp_path, monkeypatch):
    (block,) = python_blocks(README)
    assert len(block.splitlines()) <= 10
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "faces").symlink_to(run)
    monkeypatch.chdir(tmp_path)
    names = {"images": torch.rand(2, 3, 32, 32) * 2 - 1, "photo": np.zeros((32, 32, 3), np.uint8)}
    exec(block, names)
    assert names["mean"].shape == names["log_variance"].shape == (2, 4)
    assert names["faces"].shape == (16, 3, 32, 32) and names["pictures"].shape == (1, 3, 32, 32)
    assert isinstance(names["fastvae"].load("faces"), VAE)


def test_a_trained_vae_is_used_as_shown(run, tmp_path, monkeypatch):
    (block,) = (block for block in python_blocks(USAGE) if "accelerate" in block)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "faces").symlink_to(run)
    monkeypatch.chdir(tmp_path)
    names = {"images": torch.rand(2, 3, 32, 32) * 2 - 1, "photo": np.zeros((32, 32, 3), np.uint8)}
    exec(block, names)
    assert names["pictures"].shape == (1, 3, 32, 32)
    assert isinstance(names["vae"], VAE) and (tmp_path / "faces" / "README.md").is_file()


def test_the_ops_are_used_as_shown():
    (shown,) = (block for block in python_blocks(USAGE) if "swap_" in block)
    names = {
        "model": nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(3, 4, 3, padding=1, padding_mode="replicate")),
        "critic": nn.Linear(3, 1),
        "x": torch.randn(2, 3, 4, 4),
        "weight": torch.randn(5, 3, 3, 3),
        "bias": torch.randn(5),
        "fake_features": [torch.randn(2, 3, 4, 4), torch.randn(2, 4, 2, 2)],
        "real_features": [torch.randn(2, 3, 4, 4), torch.randn(2, 4, 2, 2)],
    }
    exec(shown, names)
    assert names["y"].shape == (2, 5, 8, 8) and names["loss"].dim() == 0
    assert names["model"][1].upsample == 2
