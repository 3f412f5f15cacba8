"""The README may only promise what is there."""

import re
from pathlib import Path

import pytest
import torch
from torch import nn

from bench import speed_table
from bench.reporting.record import RECORDS
from fastvae.cli import COMMANDS
from fastvae.recipes import RECIPES

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_is_named(name):
    assert f"`{name}`" in README


def test_every_command_is_shown_and_every_shown_command_exists():
    shown = set(re.findall(r"^    fastvae (\w+)", README, re.MULTILINE))
    assert shown == set(COMMANDS)


def test_links_and_pictures_exist():
    for target in re.findall(r"\]\(([^)]+)\)", README):
        assert (ROOT / target).is_file(), target


def test_the_layout_is_the_real_one():
    for folder in re.findall(r"^    (\w+)/ ", README, re.MULTILINE):
        assert (ROOT / folder).is_dir(), folder


def test_the_section_on_speed_is_what_the_newest_records_say():
    assert speed_table.replaced(README, speed_table.section(RECORDS)) == README, "run python -m bench.speed_table"


def test_the_ops_are_used_as_shown():
    (shown,) = (block for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "swap_" in block)
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
