"""The comparison of training curves: that it runs, and that its verdict is not always the same."""

import json

import numpy as np
import pytest
from PIL import Image

from bench.step.curve import SYSTEMS, TERMS, distances, main


@pytest.fixture(autouse=True)
def _few_faces(monkeypatch):
    """Drawing all takes a second."""
    monkeypatch.setattr("bench.step.curve.FACES", 16)


def test_it_leaves_a_record_and_a_picture(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    record = tmp_path / "curve.json"
    code = main(["--steps", "2", "--seeds", "2", "--out", str(record)])
    assert ("PASS" if code == 0 else "FAIL") in capsys.readouterr().out
    read = json.loads(record.read_text())
    assert read["agree"] == (code == 0)
    for system in SYSTEMS:
        for term in TERMS:
            curves = np.array(read["curves"][system][term])
            assert curves.shape == (2, 2) and np.isfinite(curves).all()
    # Same weights and batches: before the first update only rounding differs.
    first = [[run[0] for run in read["curves"][system]["rec"]] for system in SYSTEMS]
    assert first[0] == pytest.approx(first[1], rel=1e-4)
    with Image.open(record.with_suffix(".png")) as picture:
        assert min(picture.size) > 300


@pytest.mark.parametrize("shift", [0.0, 0.5, 3.0])
def test_distance_is_in_units_of_the_spread(shift):
    random = np.random.Generator(np.random.PCG64(0))
    # Levels of the seeds with a standard deviation of 2, and nothing else that smoothing could change.
    levels = random.standard_normal(5)
    runs = np.repeat(2 * levels[:, None] / levels.std(ddof=1), 60, axis=1)
    curves = {system: {term: runs + (2 * shift if system == "fastvae" else 0) for term in TERMS} for system in SYSTEMS}
    assert distances(curves) == pytest.approx(dict.fromkeys(TERMS, shift))


@pytest.mark.parametrize("term", TERMS)
def test_a_distance_of_nan_is_no_agreement(term, monkeypatch, capsys):
    monkeypatch.setattr("bench.step.curve.train", lambda *_: iter([dict.fromkeys(TERMS, 1.0)] * 2))
    monkeypatch.setattr("bench.step.curve.distances", lambda _: {**dict.fromkeys(TERMS, 0.0), term: float("nan")})
    assert main(["--steps", "2", "--seeds", "2"]) == 1
    assert "FAIL" in capsys.readouterr().out


@pytest.mark.parametrize("flags", [["--seeds", "1"], ["--steps", "1"]])
def test_too_little_to_compare(flags, capsys):
    with pytest.raises(SystemExit):
        main(flags)
    assert "at least 2 steps and 2 seeds" in capsys.readouterr().err
