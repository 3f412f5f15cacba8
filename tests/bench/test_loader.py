"""The loader benchmark: that it runs, what it refuses to time, and what a sample is."""

import itertools
import json

import numpy as np
import pytest
import torch

from bench.loader import bench_loader, contenders
from bench.loader.contenders import PEER, PREFIX, Contender
from bench.loader.jpegs import write_jpegs
from bench.loader.peer import Endless
from fastvae.data.decoders import dali


def test_it_runs_and_leaves_a_record_and_a_picture(tmp_path, capsys):
    out = tmp_path / "loader.json"
    assert bench_loader.main(["--tiny", "--workers", "1", "--out", str(out)]) == 0
    rows = {row["contender"]: row for row in json.loads(out.read_text())["rows"]}
    expected = {PEER, *(f"{PREFIX}{name}" for name in ("Pillow", "packed", "resident"))}
    if dali.is_available():
        expected |= {f"{PREFIX}DALI on the CPU"}
    assert expected <= rows.keys()
    assert all(len(row["samples_images_per_s"]) == 2 and row["images_per_s"] > 0 for row in rows.values())
    assert out.with_suffix(".png").stat().st_size > 10_000
    printed = capsys.readouterr().out
    assert ("DALI on the GPU was not measured" in printed) == (not torch.cuda.is_available())


def contender(images, log=None, ahead=0):
    batches = itertools.repeat(torch.from_numpy(images))
    if log is not None:
        batches = (log.append(number) or batch for number, batch in enumerate(batches))
    return Contender("", batches, ahead, np.array_equal, close=lambda: None)


def test_wrong_pixels_are_not_timed():
    right, wrong = np.zeros((2, 4, 4, 3), np.uint8), np.ones((2, 4, 4, 3), np.uint8)
    said = []
    validated = bench_loader._validated(
        {PEER: contender(wrong), f"{PREFIX}packed": contender(right)}, right, said.append
    )
    assert list(validated) == [f"{PREFIX}packed"] and said == [f"left out: {PEER} returns other pixels than Pillow"]
    with pytest.raises(AssertionError, match=f"{PREFIX}packed returns other pixels"):
        bench_loader._validated({f"{PREFIX}packed": contender(wrong)}, right, said.append)


@pytest.mark.parametrize("error", [SystemExit(143), RuntimeError("a worker died")])
def test_what_was_timed_before_the_end_stays(error, tmp_path, monkeypatch):
    pixels, closed = np.zeros((8, 64, 64, 3), np.uint8), []

    def until(count):
        for _ in range(count):
            yield torch.from_numpy(pixels)
        raise error

    def some(paths, folder, chosen, note):
        endless, ending = contender(pixels), until(1 + chosen.batches)  # the checked one and those of a sample
        return {
            name: Contender("", batches, 0, np.array_equal, close=lambda name=name: closed.append(name))
            for name, batches in ((PEER, endless.batches), (f"{PREFIX}packed", ending))
        }

    monkeypatch.setattr(bench_loader, "contenders", some)
    monkeypatch.setattr(bench_loader, "pillows_pixels", lambda paths, chosen: pixels)
    out = tmp_path / "loader.json"
    with pytest.raises(type(error)):
        bench_loader.main(["--tiny", "--rounds", "5", "--out", str(out)])
    rows = {row["contender"]: row for row in json.loads(out.read_text())["rows"]}
    assert len(rows[PEER]["samples_images_per_s"]) == 2 and len(rows[f"{PREFIX}packed"]["samples_images_per_s"]) == 1
    assert closed == [PEER, f"{PREFIX}packed"]


def test_a_crash_leaves_the_samples_until_then(tmp_path, monkeypatch):
    pixels, kept = np.zeros((8, 64, 64, 3), np.uint8), []
    out = tmp_path / "loader.json"

    def sample(contender, chosen) -> float:
        kept.append(len(json.loads(out.read_text())["rows"][0]["samples_images_per_s"]) if out.exists() else 0)
        return 1.0

    monkeypatch.setattr(bench_loader, "contenders", lambda *_: {PEER: contender(pixels)})
    monkeypatch.setattr(bench_loader, "pillows_pixels", lambda paths, chosen: pixels)
    monkeypatch.setattr(bench_loader, "_images_per_s", sample)
    monkeypatch.setattr(bench_loader, "_KEEP_S", 0.0)
    assert bench_loader.main(["--tiny", "--rounds", "3", "--out", str(out)]) == 0
    assert kept == [0, 1, 2]


def test_the_gates_tell_wrong_pixels_from_rounding():
    pillow = np.full((2, 8, 8, 3), 100, np.uint8)
    ring, inside, dull = pillow.copy(), pillow.copy(), pillow + 3
    ring[:, 0] += 19
    inside[0, 4, 4] += 2
    assert contenders._within_dalis_bounds(ring, pillow)
    assert not contenders._within_dalis_bounds(inside, pillow)
    assert contenders._like_nvjpegs(inside, pillow)
    assert not contenders._like_nvjpegs(dull, pillow)


def test_a_sample_throws_away_what_was_ready(monkeypatch):
    taken, slept = [], []
    chosen = bench_loader.settings(tiny=True, workers=1)
    clock = itertools.count()
    monkeypatch.setattr(bench_loader.time, "perf_counter", lambda: 2.0 * next(clock))
    monkeypatch.setattr(bench_loader.time, "sleep", slept.append)
    speed = bench_loader._images_per_s(contender(np.zeros((8, 4, 4, 3), np.uint8), taken, ahead=5), chosen)
    assert len(taken) == 5 + chosen.batches == 9
    assert speed == 4 * 8 / 2.0 and slept == [2 * 5 * 2.0 / 4]


def test_the_peer_visits_every_picture_once_an_epoch():
    batches = iter(Endless(12, 4))
    assert next(batches) == [0, 1, 2, 3]
    epochs = [list(itertools.chain(*itertools.islice(batches, 3))) for _ in range(2)]
    assert epochs[0] != epochs[1] and all(sorted(epoch) == list(range(12)) for epoch in epochs)


def test_jpegs_are_all_different(tmp_path):
    paths = write_jpegs(tmp_path / "jpegs", 17)
    assert len({path.read_bytes() for path in paths}) == 17 == len(list((tmp_path / "jpegs").iterdir()))
