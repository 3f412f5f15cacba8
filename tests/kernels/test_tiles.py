"""The table of measured tiles, and how the ops look into it."""

import json
import re

import pytest
import torch

from fastvae.kernels import tiles

H100 = (9, 0)
PRODUCT = {"BLOCK_M", "BLOCK_N", "BLOCK_K", "num_warps", "num_stages"}
# What an entry of each op holds.
NAMES = {
    "replicate_conv2d.forward": PRODUCT,
    "replicate_conv2d.data_gradient": PRODUCT,
    "replicate_conv2d.weight_gradient": PRODUCT,
    "feature_loss": {"BLOCK", "num_warps"},
    "adam_clip_": {"BLOCK", "num_warps"},
    "rmsprop_clip_": {"BLOCK", "num_warps"},
}
KEY = re.compile(
    r"(?P<op>\S+) (u[12] c\d+ o\d+ \d+x\d+ b(?P<class>\d+)|n(?P<count>\d+)) (bfloat16|float16|float32) sm_\d+"
)


def check(key, tile):
    """Raises AssertionError unless this can be an entry."""
    parsed = KEY.fullmatch(key)
    assert parsed, f"{key!r} is no key"
    assert parsed["op"] in NAMES, f"no op {parsed['op']!r}"
    count = int(parsed["class"] or parsed["count"])
    assert tiles.size_class(count) == count, f"no size class {count}"
    if tile is None:
        return
    assert tile.keys() == NAMES[parsed["op"]], f"{key!r} holds {sorted(tile)}"
    for name, value in tile.items():
        assert type(value) is int and value >= 0, f"{name} is {value!r}"
        assert name == "num_stages" or value & (value - 1) == 0 < value, f"{name}={value}"


def test_every_measured_entry_is_one_that_an_op_can_use():
    for key, tile in json.loads(tiles.PATH.read_text()).items():
        check(key, tile)


GOOD = {"BLOCK_M": 64, "BLOCK_N": 32, "BLOCK_K": 32, "num_warps": 4, "num_stages": 3}


@pytest.mark.parametrize(
    ("key", "tile"),
    [
        ("replicate_conv3d.forward u1 c64 o64 16x16 b64 bfloat16 sm_90", GOOD),
        ("replicate_conv2d.forward u1 c64 o64 16x16 b48 bfloat16 sm_90", GOOD),
        ("replicate_conv2d.forward u1 c64 o64 16x16 b64 float64 sm_90", GOOD),
        ("replicate_conv2d.forward u1 c64 o64 16x16 b64 bfloat16 sm_90", {**GOOD, "BLOCK_M": 48}),
        ("replicate_conv2d.data_gradient u1 c64 o64 16x16 b64 bfloat16 sm_90", {**GOOD, "BLOCK": 64}),
        ("replicate_conv2d.ring u1 c64 o64 16x16 b64 bfloat16 sm_90", GOOD),
        ("feature_loss bfloat16 sm_90", None),
    ],
)
def test_what_is_no_entry_is_seen(key, tile):
    with pytest.raises(AssertionError):
        check(key, tile)


def test_choose_falls_back_where_nothing_was_measured(monkeypatch):
    tile, default = {"BLOCK": 512, "num_warps": 4}, {"BLOCK": 1024, "num_warps": 8}
    measured = {
        tiles.key("feature_loss", "n64", torch.bfloat16, H100): tile,
        tiles.key("feature_loss", "n128", torch.bfloat16, H100): None,
    }
    monkeypatch.setattr(tiles, "_measured", lambda: measured)
    assert tiles.choose("feature_loss", "n64", torch.bfloat16, H100, default) == tile
    assert tiles.choose("feature_loss", "n128", torch.bfloat16, H100, default) is None
    for other in (("n32", torch.bfloat16, H100), ("n64", torch.float16, H100), ("n64", torch.bfloat16, (10, 0))):
        assert tiles.choose("feature_loss", *other, default) == default
    assert tiles.choose("adam_clip_", "n64", torch.bfloat16, H100, default) == default


def test_keys_name_the_processor():
    assert tiles.key("feature_loss", "n64", torch.bfloat16, (8, 6)) == "feature_loss n64 bfloat16 sm_86"
    assert tiles.key("feature_loss", "n64", torch.float32, (12, 0)) == "feature_loss n64 float32 sm_120"


@pytest.mark.parametrize(("count", "expected"), [(0, 1), (1, 1), (2, 2), (3, 4), (64, 64), (65, 128), (2**25, 2**25)])
def test_size_class_is_the_power_of_two_at_or_above(count, expected):
    assert tiles.size_class(count) == expected
