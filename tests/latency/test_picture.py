"""The picture of few cells and of many, and one that cannot be written."""

import numpy as np
import pytest
from PIL import Image

from fastvae.errors import FastvaeError
from fastvae.latency.measure import Cell, Latency
from fastvae.latency.picture import draw


def cell(verb: str, batch: int) -> Cell:
    fast, plain = (Latency(ms, 1.5 * ms, 2 * ms, 1e3 * batch / ms, 10) for ms in (batch, 3 * batch))
    return Cell(verb, batch, fast, plain, 0.0)


@pytest.mark.parametrize("verbs", [("decode",), ("encode", "decode", "reconstruct")])
def test_nothing_is_cut_off(tmp_path, verbs):
    path = tmp_path / "made" / "picture.png"
    draw([cell(verb, batch) for verb in verbs for batch in (1, 64)], "a long title, " * 12, path)
    with Image.open(path) as drawn:
        ink = np.asarray(drawn.convert("L")) < 128
    edges = (ink[:2], ink[-2:], ink[:, :2], ink[:, -2:])
    assert ink.any() and not any(edge.any() for edge in edges)


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FastvaeError, match="choose another --out"):
        draw([cell("decode", 1)], "title", tmp_path / "file" / "picture.png")
