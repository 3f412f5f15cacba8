"""The README may only promise what is there."""

import json
import re
import statistics
from pathlib import Path

import pytest
import torch
from torch import nn

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


def test_the_speed_table_is_the_record():
    (name,) = re.findall(r"`(bench/records/\S+-step\.json)`", README)
    times_s = json.loads((ROOT / name).read_text())["times_s"]
    base = statistics.median(times_s["plain eager fp32"])
    rows = re.findall(r"^\| (.+?) \| ([\d.]+) \|$", README, re.MULTILINE)
    assert {row for row, _ in rows} == set(times_s)
    for row, ratio in rows:
        assert ratio == f"{base / statistics.median(times_s[row]):.2f}", row


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
